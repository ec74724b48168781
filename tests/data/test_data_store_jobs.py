"""Jobs that meet at one store, and jobs that are cut off while they fill it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from standin import Ready, assert_complete, leftovers

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.data.store import Store
from tests.conftest import wait_for

pytestmark = pytest.mark.timeout(120)  # a job that waits for ever is a failure


def test_an_interrupted_download_leaves_nothing(tiny, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path, tiny.spec, [Ready(tiny.arrays, [KeyboardInterrupt()])]).open("train")
    assert leftovers(tmp_path) == set()
    assert_complete(Store(tmp_path, tiny.spec, [Ready(tiny.arrays)]), tiny)


JOB = """
import logging, sys, time
from pathlib import Path
from standin import stand_in
from cifar_tuning.data.store import Store
logging.basicConfig(level=logging.INFO, format="%(message)s")
root = Path(sys.argv[1])
tiny = stand_in()
class Slow:
    name = "slow"
    def fetch(self, folder, scratch, spec):
        with (root / "fetches").open("a") as file:
            file.write("x")
        (scratch / "half").write_bytes(b"half a download")
        while not (root / "release").exists():
            time.sleep(0.02)
        return tiny.arrays
images, labels = Store(root / "data", tiny.spec, [Slow()]).open("train")
print(int(images.sum()), int(labels.sum()))
"""


def start_job(root):
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{PROJECT_ROOT}"}
    return subprocess.Popen(
        [sys.executable, "-c", JOB, str(root)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_jobs_at_once_fetch_once(tiny, tmp_path):
    first = start_job(tmp_path)
    wait_for((tmp_path / "fetches").exists)
    second = start_job(tmp_path)
    # The first one's download ends only when the second one has said that it waits.
    assert "Another job is fetching the dataset" in second.stderr.readline()
    (tmp_path / "release").touch()
    results = [job.communicate(timeout=90) for job in (first, second)]
    expected = f"{tiny.arrays['train_images'].sum()} {tiny.arrays['train_labels'].sum()}\n"
    assert [out for out, _ in results] == [expected, expected], results
    assert (tmp_path / "fetches").read_text() == "x"


@pytest.mark.slow
def test_a_killed_download_is_cleared_away_and_done_again(tiny, tmp_path):
    job = start_job(tmp_path)
    wait_for((tmp_path / "fetches").exists)
    wait_for(lambda: list((tmp_path / "data").rglob("half")))
    job.send_signal(signal.SIGKILL)
    job.communicate()
    assert leftovers(tmp_path / "data")  # it had no chance to tidy up
    assert_complete(Store(tmp_path / "data", tiny.spec, [Ready(tiny.arrays)]), tiny)
    assert leftovers(tmp_path / "data") == set()

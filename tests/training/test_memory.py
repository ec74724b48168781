import resource
import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from cifar_tuning.training.memory import keep_freed_memory
torch.set_num_threads(1)
{prepare}
def work(times):
    for _ in range(times):
        torch.ones(48 * 2**20, dtype=torch.uint8)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work(5)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
# The heap may take some rounds to have a place for the block, depending on where the system has put it.
print(min(faults() for _ in range(6)))
"""
PAGES = 48 * 2**20 // resource.getpagesize()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
@pytest.mark.parametrize(("prepare", "least", "most"), [("", 4, 6), ("keep_freed_memory()", 0, 1)])
def test_memory_that_is_needed_again_is_kept(prepare, least, most):
    """Each page that the system has to give anew is a fault; `least` and `most` count whole blocks of five."""
    script = [sys.executable, "-c", SCRIPT.format(prepare=prepare)]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert least * PAGES * 0.99 <= int(done.stdout) <= most * PAGES

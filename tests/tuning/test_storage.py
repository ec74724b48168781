from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from cifar_tuning.tuning.storage import open_storage

PROCESSES = 4


def _barrier(barrier: Barrier) -> None:
    global together
    together = barrier


def _open(folder: Path, number: int) -> int:
    together.wait(timeout=60)
    return len(open_storage(f"sqlite:///{folder}/{number}.db").get_all_studies())


@pytest.mark.slow
def test_several_processes_make_the_same_file(tmp_path):
    context = get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, context, _barrier, (context.Barrier(PROCESSES),)) as pool:
        for number in range(4):
            assert list(pool.map(partial(_open, tmp_path), [number] * PROCESSES)) == [0] * PROCESSES

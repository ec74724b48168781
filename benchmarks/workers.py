"""One process with every core's thread against one process a core with one thread each, training the same model."""

import multiprocessing
import os
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import measure, stacks
from benchmarks.ours import tracked_run
from cifar_tuning.fused.stack import Stack
from cifar_tuning.training.computation import Computation
from cifar_tuning.training.settings import resolve_device

# Runs that a process trains: one, and a stack.
SIZES = (1, 4)
ONE = "one process"


def run(networks: list[str], repeats: int) -> Path:
    """Measures each network by itself and in a stack and prints the ratios; returns the JSON file.

    Args:
        networks: keys of `ours.NETWORKS`.
        repeats: rounds that count.
    """
    cores = os.cpu_count() or 1
    several, figures = f"{cores} processes", dict[str, Any]()
    for network in networks:
        for size in SIZES:
            if network.startswith("resnet") and size > 1:  # a CPU trains them one by one
                continue
            groups = {ONE: _start(1, cores, network, size), several: _start(cores, 1, network, size)}
            rates = measure.alternate({name: partial(_round, group) for name, group in groups.items()}, repeats)
            for group in groups.values():
                for connection in group:
                    connection.send(False)
            compared = figures[f"{network}, {size}"] = measure.compare(rates, ONE)
            shown = ", ".join(f"{name}: {figure['median']:,.0f}" for name, figure in compared.items())
            print(f"workers  {network}, {size} in a process: {shown} model-images/s, {compared[several]['ratio']:.2f}x")
    return measure.write_networks("workers", "model-images/s, training", figures, repeats)


def _start(count: int, threads: int, network: str, size: int) -> list[Connection]:
    """Starts processes that wait to be asked for a round; returns the ends of their pipes."""
    before, connections = os.environ.get("OMP_NUM_THREADS"), []
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by PyTorch when it is imported
    try:
        for _ in range(count):
            ours, theirs = multiprocessing.Pipe()
            multiprocessing.get_context("spawn").Process(
                target=_process, args=(theirs, network, size), daemon=True
            ).start()
            connections.append(ours)
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
    for connection in connections:
        connection.recv()  # it is ready
    return connections


def _round(connections: list[Connection]) -> int:
    for connection in connections:
        connection.send(True)
    return sum(connection.recv() for connection in connections)


def _process(connection: Connection, network: str, size: int) -> None:
    device = resolve_device("cpu")
    rates = [stacks.RATES[i % len(stacks.RATES)] for i in range(size)]
    runs = [tracked_run(network, rate, device, together=size > 1) for rate in rates]
    computation = Stack(runs) if size > 1 else Computation(runs, runs[0].model)
    connection.send(0)
    while connection.recv():
        connection.send(stacks.training(computation))

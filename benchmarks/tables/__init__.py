"""Each benchmark's figures as lines of Markdown."""

from collections.abc import Callable

from benchmarks.tables import accuracies, costs, studies, throughput
from benchmarks.tables.cells import Figures

TABLES: dict[str, Callable[[Figures], list[str]]] = {
    "pipeline": throughput.pipeline,
    "loading": throughput.loading,
    "stacks": throughput.stacks,
    "workers": throughput.workers,
    "kernels": throughput.kernels,
    "start": costs.start,
    "tracking": costs.tracking,
    "overhead": studies.overhead,
    "waiting": studies.waiting,
    "pruning": studies.pruning,
    "simulated": studies.simulated,
    "accuracy": accuracies.accuracy,
    "targets": accuracies.targets,
    "agreement": accuracies.compared,
    "precision": accuracies.compared,
    "techniques": accuracies.techniques,
}

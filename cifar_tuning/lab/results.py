"""All that the page is drawn from: runs, curves and measurements, read from the files beside it and nowhere else."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import mean
from typing import Any, Self

from cifar_tuning.lab.experiments import EXPERIMENTS, LENGTH, Experiment
from cifar_tuning.lab.runs import Curves, Key, Run, load_curves, load_runs
from cifar_tuning.lab.scale import Scale

Metric = Callable[[Run], float | None]

CLASSES = 10
CHANCE = 1 / CLASSES


def val_acc(run: Run) -> float | None:
    """A run's best validation accuracy."""
    return run.val_acc


def gap(run: Run) -> float | None:
    """Training accuracy minus validation accuracy after the last epoch; None if the run diverged."""
    if run.final_train_acc is None or run.final_val_acc is None:
        return None
    return run.final_train_acc - run.final_val_acc


@dataclass(frozen=True)
class Results:
    """What is there.

    Attributes:
        scale: says which runs there should be, and where the measurements are.
        runs: sorted.
        curves: of some or all of them.
    """

    scale: Scale
    runs: list[Run]
    curves: Mapping[Key, Curves]

    @classmethod
    def load(cls, scale: Scale) -> Self:
        """Reads the CSV files; what is not there is left out."""
        return cls(scale, load_runs(scale.data), load_curves(scale.data))

    def by_last_epoch(self) -> Self:
        """Returns the same with each run's last accuracy for its best one. A network that diverged can but guess."""
        last = (CHANCE if run.final_val_acc is None else run.final_val_acc for run in self.runs)
        return replace(self, runs=[replace(run, val_acc=value) for run, value in zip(self.runs, last, strict=True)])

    @cached_property
    def _of(self) -> dict[tuple[str, str], list[Run]]:
        found: dict[tuple[str, str], list[Run]] = {}
        for run in self.runs:
            for name in (run.experiment, *self._sharers(run)):
                found.setdefault((name, run.configuration), []).append(run)
        return found

    def _sharers(self, run: Run) -> list[str]:
        """Returns the other experiments that want a run of the same options and seed: it is not trained twice."""
        own, same = self.experiment(run.experiment), (run.configuration, run.seed)
        others = (self.experiment(name) for name in EXPERIMENTS if name != run.experiment)
        sharers = [other.name for other in others if own.shares(same, other)]
        return [name for name in sharers if (name, *same) not in self._trained]

    @cached_property
    def _trained(self) -> set[tuple[str, str, int]]:
        return {(run.experiment, run.configuration, run.seed) for run in self.runs}

    def experiment(self, name: str) -> Experiment:
        """Returns the grid that the experiment should have."""
        return self.scale.experiment(name)

    def of(self, experiment: str, configuration: str) -> list[Run]:
        """Returns the runs of a configuration, by seed."""
        return self._of.get((experiment, configuration), [])

    def values(self, experiment: str, configuration: str, metric: Metric = val_acc) -> dict[int, float]:
        """Returns a figure of each of the configuration's runs that has it, by seed."""
        found = {run.seed: metric(run) for run in self.of(experiment, configuration)}
        return {seed: value for seed, value in found.items() if value is not None}

    def curve_means(self, experiment: str, configuration: str, epochs: slice) -> dict[int, float]:
        """Returns each run's mean validation accuracy over epochs, by seed; runs that lack an epoch are left out."""
        found = {}
        for run in self.of(experiment, configuration):
            curve = self.curves.get(run.key, {}).get("val_acc", [])
            numbers = range(run.epochs + 1)[epochs]
            values = [curve[epoch] for epoch in numbers if epoch < len(curve)]
            known = [value for value in values if value is not None]
            if numbers and len(known) == len(numbers):
                found[run.seed] = mean(known)
        return found

    def lengths(self, experiment: str) -> list[str]:
        """Returns what may follow a configuration: longer trainings that some runs had, longest first, then nothing."""
        grid = self.experiment(experiment)
        found = set()
        for configuration in (configuration for name, configuration in self._of if name == experiment):
            base, _, epochs = configuration.rpartition(LENGTH)
            if base.strip() in grid.configurations and epochs.isdigit() and int(epochs) > grid.epochs:
                found.add(int(epochs))
        separator = " " if grid.params else ""
        return [*(f"{separator}{LENGTH}{epochs}" for epochs in sorted(found, reverse=True)), ""]

    def configurations(self, experiment: str) -> list[str]:
        """Returns the grid's configurations, then those that were trained for longer."""
        grid, longer = self.experiment(experiment).configurations, self.lengths(experiment)[:-1]
        there = [one + length for length in reversed(longer) for one in grid if self.of(experiment, one + length)]
        return [*grid, *there]

    def missing(self, experiment: str) -> list[tuple[str, int]]:
        """Returns the configuration and seed of each run that is not there."""

        def there(configuration: str, seed: int) -> bool:
            return any(run.seed == seed for run in self.of(experiment, configuration))

        return [run for run in self.experiment(experiment).runs if not there(*run)]

    def count(self) -> tuple[int, int]:
        """Returns how many of the grids' runs are there and how many there should be, a shared one counted once."""
        lacking = {(name, *run) for name in EXPERIMENTS for run in self.missing(name)}
        grids, wanted = [self.experiment(name) for name in EXPERIMENTS], set()
        for number, grid in enumerate(grids):
            earlier = grids[:number]
            wanted |= {(grid.name, *run) for run in grid.runs if not any(grid.shares(run, one) for one in earlier)}
        return len(wanted - lacking), len(wanted)

    def outside(self, experiment: str) -> list[Run]:
        """Returns an experiment's runs that its grid does not ask for: longer ones, or of further seeds."""
        wanted = set(self.experiment(experiment).runs)
        runs = (run for run in self.runs if run.experiment == experiment)
        return [run for run in runs if (run.configuration, run.seed) not in wanted]

    def measured(self, name: str) -> Any:
        """Returns the measurement in `NAME.json`, or None if there is none."""
        file = self.scale.data / f"{name}.json"
        return json.loads(file.read_text()) if file.is_file() else None

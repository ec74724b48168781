"""A sweep's objectives, and what a report says before it names a best configuration."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from cifar_tuning.errors import UserError
from cifar_tuning.reporting.metric_names import larger_is_better, of_test, of_training
from cifar_tuning.reporting.selection import objectives_of
from cifar_tuning.reporting.table import Table

if TYPE_CHECKING:
    import optuna

    from cifar_tuning.tracking.reading import RunRecord, SweepRecord

# Options that say how long a run trains.
LENGTH = re.compile(r"epoch|step|iter", re.IGNORECASE)


@dataclass(frozen=True)
class Aim:
    """What a sweep was after.

    Attributes:
        study: its study.
        lost: why that can't be read.
        objectives: whether more of each is better; None where neither a study nor its name tells.
        searched: what the study chose, and whether from a continuous range.
    """

    study: "optuna.Study | None"
    lost: list[str]
    objectives: dict[str, bool | None]
    searched: dict[str, bool]

    @property
    def of_study(self) -> bool:
        """Whether a study chose the configurations, also where it can't be read any more."""
        return self.study is not None or bool(self.lost or self.searched)

    @property
    def several(self) -> bool:
        """Whether it looked for several things at once, so that nothing is its best."""
        return len(self.objectives) > 1

    @property
    def ways(self) -> dict[str, bool]:
        """Whether more of each objective is better, taken so where nothing tells."""
        return {name: more is not False for name, more in self.objectives.items()}

    def way(self, metric: str, asked: bool | None) -> bool | None:
        """Returns whether more of a metric is better: as asked for, as the study has it, as its name says."""
        return asked if asked is not None else self.objectives.get(metric, larger_is_better(metric))

    def unfit(self, metric: str, cfg: DictConfig) -> str:
        """Returns why nothing is called the best by a metric, as a sentence; nothing where it can choose."""
        all_the_same = chooses(metric)
        if self.way(metric, cfg.maximize) is None:
            return (
                f"The name `{metric}` does not tell whether more or less of it is better: by it no configuration is "
                "called the best. `maximize=true` or `maximize=false` says so."
            )
        if metric == cfg.metric:
            return ""
        if self.several:
            wanted = ", ".join(f"`{name}`" for name in self.objectives)
            none = f"by `{metric}` alone none is called the best"
            return f"The sweep has several objectives ({wanted}): {none}. {all_the_same}"
        images = "that were trained on" if of_training(metric) else "of the test set" if of_test(metric) else ""
        if not images or metric in self.objectives:
            return ""
        return f"`{metric}` is of the images {images}: by it no configuration is called the best. {all_the_same}"


def chooses(metric: str) -> str:
    """Returns the sentence that says how to have a best configuration nevertheless."""
    return f"`metric={metric}` chooses by it all the same."


def find_aim(cfg: DictConfig, sweep: "SweepRecord", runs: "Sequence[RunRecord]") -> Aim:
    """Finds a sweep's study, or what its runs say they were optimised for.

    Args:
        cfg: the command's options.
        sweep: the sweep.
        runs: those that compete.
    """
    from cifar_tuning.tuning.finding import find_study, maximized, searched

    params = sweep.parent.params if sweep.parent is not None else {}
    study, lost = None, []
    try:
        study = find_study(sweep.folder, params, cfg.storage)
    except UserError as error:
        lost.append(str(error))
    names = (study.metric_names if study is not None else None) or objectives_of(runs)
    more = maximized(study, params)
    # Without a study the words of a name tell which way is better.
    ways = more if len(more) == len(names) else [larger_is_better(name) for name in names]
    return Aim(study, lost, dict(zip(names, ways, strict=True)), searched(study, params))


def why_none_is_best(table: Table, aim: Aim, cfg: DictConfig) -> list[str]:
    """Returns why no configuration is called the best, as sentences; nothing where one is."""
    if table.has_best:
        return []
    if not table.images:
        so_far = f"What has not ended can't be ranked, so none is called the best. {chooses(table.metric)}"
        return [aim.unfit(table.metric, cfg) or so_far]
    return [
        f"The configurations are not known to be judged on the same images: they differ in {', '.join(table.images)}. "
        "Such figures can't be ranked against each other, so none is called the best."
    ]


def cautions(table: Table, runs: "Sequence[RunRecord]", last: Mapping[str, int], of_study: bool = False) -> list[str]:
    """Returns sentences about what makes differences doubtful.

    Args:
        table: the configurations.
        runs: those that count.
        last: the last step of each run that has a curve, by its id.
        of_study: whether a study chose the configurations.
    """
    return [*_chosen_on_test(table), *_few(table, of_study), *_unlike(table, runs), *_unequal(table, runs, last)]


def _chosen_on_test(table: Table) -> list[str]:
    if not table.has_best or not of_test(table.metric):
        return []
    return [
        f"The best was chosen on test images (`{table.metric}`), so what it reaches there flatters it: "
        "other images have to judge it."
    ]


def _few(table: Table, of_study: bool) -> list[str]:
    if len(table.runs) == 1:
        return ["There is one run only: its figures stand below, but there is nothing to compare it with."]
    if len(table.configurations) > 1 and all(c.summary.n == 1 for c in table.configurations):
        # To a study the seeds of `seed=0,1,2` would be one more thing to choose.
        how = ": a new study with `hydra.sweeper.repeats=3`" if of_study else ", as in `seed=0,1,2`"
        return [f"Every configuration ran once: how much is chance can't be told. Several seeds would{how}."]
    return []


def _unlike(table: Table, runs: "Sequence[RunRecord]") -> list[str]:
    """Says so where runs were computed in different ways: `auto` measures for each model and batch size by itself."""
    kinds = Counter(run.tags["precision"] for run in runs if "precision" in run.tags)
    if "trainer.precision" in table.names or len(kinds) < 2:
        return []
    shown = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())
    return [
        f"The runs were not computed in one precision: {shown}. Part of what their options seem to do may be that; "
        "trainer.precision=fp32 trains all alike."
    ]


def _unequal(table: Table, runs: "Sequence[RunRecord]", last: Mapping[str, int]) -> list[str]:
    """Says so where runs that ended were not equally long and none of their options says so."""
    # One that patience ended has a tag that says why.
    whole = [run for run in runs if run.state == "complete" and "stopped" not in run.tags]
    steps = {last[run.run_id] for run in whole if run.run_id in last}
    if len(steps) < 2 or any(LENGTH.search(name) for name in table.names):
        return []
    return [
        f"The runs are not equally long: their last steps are {min(steps)} to {max(steps)}, and no option says why. "
        "Part of what their options seem to do may be that."
    ]

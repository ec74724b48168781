"""Which of Optuna's plots say something about a study."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cifar_tuning.reporting.importances import complete_trials, varied
from cifar_tuning.reporting.metric_names import in_words
from cifar_tuning.reporting.study_axes import (
    tidy_front,
    tidy_history,
    tidy_intermediate,
    tidy_lines,
    tidy_slice,
    tidy_timeline,
)

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Plot:
    """One of Optuna's plots; its function has the same name for plotly and for matplotlib.

    `shares` of importance have a line where chance ends.
    """

    name: str
    heading: str
    function: str
    inches: tuple[float, float] = (9, 4.5)
    options: dict[str, Any] = field(default_factory=dict)
    shares: bool = False
    tidy: "Callable[[Sequence[Axes], optuna.Study], None] | None" = None


def sensible(study: "optuna.Study", target_name: str, chance: float | None) -> list[Plot]:
    """Returns the plots worth drawing.

    Args:
        study: finished, running or empty.
        target_name: what the objective is called, unless the study has metric names.
        chance: the share of importance where chance ends; None: there are no importances.
    """
    trials = study.get_trials(deepcopy=False)
    complete = complete_trials(study)
    named = {"target_name": study.metric_names[0] if study.metric_names else in_words(target_name)}
    plots = []
    if complete and len(study.directions) > 1:
        plots.append(Plot("pareto_front", "Pareto front", "plot_pareto_front", (7, 5), tidy=tidy_front))
    elif complete:
        plots.append(Plot("history", "History", "plot_optimization_history", options=named, tidy=tidy_history))
    # Optuna draws no others: a trial that was interrupted waits, with the values that it had.
    drawn = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED", "RUNNING")]
    if any(math.isfinite(value) for trial in drawn for value in trial.intermediate_values.values()):
        plots.append(
            Plot("intermediate_values", "Intermediate values", "plot_intermediate_values", tidy=tidy_intermediate)
        )
    if len({tuple(trial.values) for trial in complete}) > 1:
        plots += _about_parameters(study, varied(study), named, chance)
    if any(trial.datetime_start for trial in trials):
        size = (9.0, min(9.0, 3 + 0.06 * len(trials)))
        plots.append(Plot("timeline", "Timeline", "plot_timeline", size, tidy=tidy_timeline))
    return plots


def _about_parameters(
    study: "optuna.Study", varied: list[str], named: dict[str, Any], chance: float | None
) -> list[Plot]:
    if not varied:
        return []
    options = {**named, "params": varied}
    inches = (max(9, 1.9 * (len(varied) + len(study.directions))), 5)
    lines = Plot(
        "parallel_coordinates", "Parallel coordinates", "plot_parallel_coordinate", inches, options, tidy=tidy_lines
    )
    if len(study.directions) > 1:
        # Optuna refuses slices. Its importances take each objective for a loss, and its picture of them puts the
        # last objective's order of parameters beside every objective's bars.
        return [lines]
    # The default evaluator, PED-ANOVA, draws no random numbers and so needs no seed.
    bars = (9, max(2.5, 1.2 + 0.45 * len(varied)))
    dots = (max(6, len(varied) * max(3.2, 0.15 * max(map(len, varied)))), 4.5)  # names side by side
    shares = Plot("importances", "Importances", "plot_param_importances", bars, options, shares=True)
    return [
        *([] if chance is None else [shares]),
        Plot("slice", "Values by parameter", "plot_slice", dots, options, tidy=tidy_slice),
        lines,
    ]

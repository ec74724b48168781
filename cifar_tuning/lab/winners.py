"""The third lab's winner gets further seeds; the best configuration reads the test set, each seed's checkpoint once."""

import json
from pathlib import Path

from cifar_tuning.files import write_text
from cifar_tuning.lab.collect import TEST_FILE, Found
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.runs import Key, Run
from cifar_tuning.lab.tables import describe
from cifar_tuning.reporting.statistics import summarize
from cifar_tuning.reporting.wording import mean_and_std

SWEEPS = ("lab3_resnet20", "lab3_untried")
RECIPE = "lab3_past_90"
FOLDER = "lab3_winner"


def winner(results: Results) -> Run | None:
    """Returns the best run of the third lab's two grids (first seed, best validation accuracy); None before both end.

    The configuration that both grids have counts once.
    """
    if any(results.missing(name) for name in SWEEPS):
        return None
    grids = [(name, configuration) for name in SWEEPS for configuration in results.experiment(name).configurations]
    runs = [results.of(*pair)[0] for pair in grids]
    return max(runs, key=lambda run: run.val_acc)


def missing_repeats(results: Results) -> tuple[Run, list[int]] | None:
    """Returns the winner and the seeds that it still lacks; None if there is no winner yet or it lacks none."""
    best = winner(results)
    if best is None:
        return None
    there = {run.seed for run in results.of(best.experiment, best.configuration)}
    lacking = [seed for seed in results.experiment(RECIPE).seeds if seed not in there]
    return (best, lacking) if lacking else None


def best_recipe(results: Results) -> str:
    """Returns the recipe's best configuration in the mean of those with all seeds: the grid's, or a longer one."""
    grid, *longer = results.configurations(RECIPE)
    seeds = len(results.experiment(RECIPE).seeds)
    whole = [one for one in (grid, *longer) if len(results.of(RECIPE, one)) >= seeds]
    return max(whole, key=lambda one: summarize(results.values(RECIPE, one).values()).mean, default=grid)


def to_test(results: Results) -> list[Run]:
    """Returns the runs that may read the test set: those of the configuration with the best mean validation accuracy.

    Empty until the winner of the grids and the recipe have all their seeds, so that nothing is chosen afterwards.
    """
    if (tested := next((run for run in results.runs if run.test_acc is not None), None)) is not None:
        # A longer training may be better by now, but the images are read once.
        return results.of(tested.experiment, tested.configuration)
    best = winner(results)
    if best is None or missing_repeats(results) or results.missing(RECIPE):
        return []
    seeds = set(results.experiment(RECIPE).seeds)
    pairs = [(best.experiment, best.configuration), (RECIPE, best_recipe(results))]
    candidates = [[run for run in results.of(*pair) if run.seed in seeds] for pair in pairs]
    return max(candidates, key=lambda runs: summarize(run.val_acc for run in runs).mean)


def recipe_lines(results: Results) -> list[str]:
    """Returns a sentence for the recipe and one for the grids' winner: validation, and test where it was read."""
    best = winner(results)
    lines = []
    pairs = [(RECIPE, best_recipe(results))]
    pairs += [(best.experiment, best.configuration)] if best is not None else []
    for experiment, configuration in pairs:
        runs = results.of(experiment, configuration)
        if not runs:
            continue
        name = (
            "The fast recipe"
            if experiment == RECIPE
            else f"The best of the two grids above ({describe(configuration)})"
        )
        tested = [run.test_acc for run in runs if run.test_acc is not None]
        test = f", test {_in_words(tested)}" if tested else "; the test set is not read"
        lines.append(f"{name}: validation {_in_words([run.val_acc for run in runs])}{test}.")
    if len(lines) > 1:
        lines.append("The winner was chosen by its first seed, which flatters that one; the further seeds are fair.")
    return lines


def _in_words(values: list[float]) -> str:
    return f"{mean_and_std(summarize(values))} (n = {len(values)})"


def test_once(runs: list[Run], found: dict[Key, Found]) -> None:
    """Runs the predict command for each run's best checkpoint and keeps its accuracy in the run's folder.

    A run that was tested, or whose folder is not on this machine, is left alone.
    """
    for run in runs:
        one = found.get(run.key)
        if run.test_acc is None and one is not None and not (one.folder / TEST_FILE).exists():
            accuracy = _predict(one.folder)
            write_text(one.folder / TEST_FILE, json.dumps({"test_acc": accuracy}) + "\n")


def _predict(folder: Path) -> float:
    from hydra import compose, initialize_config_dir
    from hydra.utils import execution_whitelist

    from cifar_tuning import PROJECT_ROOT
    from cifar_tuning.jobs import predict
    from cifar_tuning.jobs.process import trusted_targets

    with (
        initialize_config_dir(str(PROJECT_ROOT / "conf")),
        execution_whitelist(trusted_targets()),
    ):
        config = compose("predict", [f"run={folder.as_posix()}", f"output={(folder / 'predictions.csv').as_posix()}"])
        accuracy = predict.run(config)
    assert accuracy is not None  # only images= have none
    return accuracy

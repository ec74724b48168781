"""Repeats the lab report and draws docs/results.md: `python -m cifar_tuning.lab`, which `make results` calls."""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.lab import scale as scales
from cifar_tuning.lab.collect import Found, read_sweeps
from cifar_tuning.lab.experiments import EXPERIMENTS, Experiment
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.runs import Key, load_curves, load_runs, merge_runs, save_curves, save_runs
from cifar_tuning.lab.scale import Scale
from cifar_tuning.lab.winners import FOLDER, RECIPE, SWEEPS, missing_repeats, test_once, to_test


def main() -> int:
    """Trains, measures and draws; returns the exit status: 1 if an experiment could not be trained."""
    options = _parse()
    scale = scales.quick() if options.quick else scales.full()
    found = collect(scale)
    failed: list[str] = []
    if options.train:
        for name in options.only:
            if not train(scale, name, found, options.overrides, options.again):
                failed.append(name)
            found = collect(scale)
        if {*SWEEPS, RECIPE} & set(options.only):
            _train_winner(scale, options.overrides)
            found = collect(scale)
        _measure(scale, found, set(options.only), options.again)
        found = collect(scale)
    draw(scale)
    if failed:
        print(f"error: {', '.join(failed)} could not be trained; their logs are in {scale.sweeps}", file=sys.stderr)
    return 1 if failed else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cifar_tuning.lab", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="two epochs of everything on few images, in multirun/quick"
    )
    parser.add_argument("--only", help="the experiments to train and measure, separated by commas (all)")
    parser.add_argument("--no-train", dest="train", action="store_false", help="train nothing, draw from what is there")
    parser.add_argument("--again", action="store_true", help="also train what is in the CSV but not in multirun")
    parser.add_argument("overrides", nargs="*", help="added to every training command, such as trainer.device=cuda")
    options = parser.parse_args()
    options.only = [name for name in (options.only or "").split(",") if name] or list(EXPERIMENTS)
    if unknown := [name for name in options.only if name not in EXPERIMENTS]:
        parser.error(f"--only {','.join(unknown)}: must be among {', '.join(EXPERIMENTS)}")
    return options


def collect(scale: Scale) -> dict[Key, Found]:
    """Adds the finished runs of this machine to the CSV files; returns them."""
    found = read_sweeps(scale.sweeps, scale.common)
    old_runs = load_runs(scale.data)
    runs = merge_runs(old_runs, (one.run for one in found.values()))
    curves = {**load_curves(scale.data), **{key: one.curves for key, one in found.items()}}
    if runs:
        save_runs(runs, scale.data)
        save_curves(curves, runs, scale.data)
    return found


def train(scale: Scale, name: str, found: dict[Key, Found], overrides: Sequence[str], again: bool) -> bool:
    """Trains what an experiment lacks, by the command a user would type; false if it failed.

    Args:
        scale: how much, and where to.
        name: of the experiment.
        found: the runs on this machine.
        overrides: added to the command; values of what is swept say which part of the grid is wanted.
        again: runs of other machines do not count.
    """
    there = found if again else {run.key: run for run in load_runs(scale.data)}
    grid = scale.experiment(name)
    wanted = grid.changed(filter(grid.sweeps, overrides)).runs
    lacking = [run for run in grid.runs if run in wanted and (name, *run) not in there]
    if not lacking:
        return True
    begun: dict[str, dict[tuple[str, int], str]] = {}
    for key, one in found.items():
        if key[0] == name and key[1:] in grid.runs:
            begun.setdefault(one.folder.parent.name, {})[key[1:]] = one.folder.name
    options, todo = _part(grid, begun, lacking)
    print(f"\n{name}: {todo} of {len(grid.runs)} runs to train", flush=True)
    more = [override for override in overrides if not grid.sweeps(override)]
    return _run(scale.command(name, *options, *more, folder=_folder(name, options) if options else None))


def _part(
    grid: Experiment, begun: Mapping[str, Mapping[tuple[str, int], str]], lacking: Sequence[tuple[str, int]]
) -> tuple[list[str], int]:
    """Returns the overrides that leave what is lacking of a grid, and how many runs these train.

    In a folder jobs are known by their numbers, so each part has one of its own; one that was begun is gone on with by
    the same command, which finds its finished jobs there, unless it would train what another machine has trained, or
    another command of the user's has used the folder and gave its jobs other numbers.

    Args:
        grid: the whole.
        begun: the finished runs in each folder of this machine, with their jobs' numbers.
        lacking: the runs to train.
    """

    def count(part: Sequence[str]) -> int:
        jobs = {run: str(number) for number, run in enumerate(grid.changed(part).runs)}
        there = begun.get(_folder(grid.name, part), {})
        return sum(there.get(run) != number for run, number in jobs.items())

    parts = [*(grid.restricted_to([*lacking, *runs]) for runs in begun.values()), grid.restricted_to(lacking)]
    least = min(parts, key=count)
    return least, count(least)


def _folder(name: str, options: Sequence[str]) -> str:
    return re.sub(r"[^\w.-]+", "_", "_".join([name, *options]))


def _train_winner(scale: Scale, overrides: Sequence[str]) -> None:
    repeats = missing_repeats(Results.load(scale))
    if repeats is None:
        return
    best, seeds = repeats
    print(f"\nfurther seeds of the third lab's winner, {best.configuration}", flush=True)
    options = [*best.configuration.split(), f"seed={','.join(map(str, seeds))}", *overrides]
    _run(scale.command(best.experiment, *options, folder=FOLDER))


def _run(arguments: Sequence[str]) -> bool:
    print(f"python {shlex.join(arguments)}", flush=True)
    return subprocess.run([sys.executable, *arguments], cwd=PROJECT_ROOT, check=False).returncode == 0


def _measure(scale: Scale, found: dict[Key, Found], only: set[str], again: bool) -> None:
    from hydra.utils import execution_whitelist

    from cifar_tuning.jobs.process import trusted_targets
    from cifar_tuning.lab.measure import measure

    with execution_whitelist(trusted_targets()):
        measure(scale, found, only, again)
    if not scale.quick and RECIPE in only:  # a picture of how it goes is no reason to open the test set
        test_once(to_test(Results.load(scale)), found)


def draw(scale: Scale) -> None:
    """Draws the page and its pictures from the files beside it."""
    from cifar_tuning.lab.page import write_page
    from cifar_tuning.lab.pictures import draw_all

    results = Results.load(scale)
    write_page(results, draw_all(results))
    for name in EXPERIMENTS:
        if missing := results.missing(name):
            print(f"{name}: {len(missing)} of {len(results.experiment(name).runs)} runs are missing")
    print(f"{scale.page}: drawn")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on.")

"""The study sweeper against the stock Optuna plugin: epochs trained, time waited, cost of a trial."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import optuna

from benchmarks import measure
from cifar_tuning import PROJECT_ROOT
from cifar_tuning.tuning.claims import owner_of

STOCK, OURS = "stock", "study"
SWEEPERS = {STOCK: ["hydra/sweeper=optuna", "hydra.sweeper.direction=maximize"], OURS: ["hydra/sweeper=study"]}
ALONE = {STOCK: [], OURS: ["hydra.sweeper.workers=1"]}
# Of a study with pruning: its trials, and the epochs of a whole one.
TRIALS, EPOCHS = 40, 15
QUIET = ["trainer.device=cpu", "tracking=none"]


def pruning(repeats: int, train_limit: int | None) -> Path:
    """Counts the epochs that pruning saves and what it does to the best accuracy.

    Args:
        repeats: studies of each kind, with sampler seeds 0, 1, …
        train_limit: training images; None: all 45,000.
    """
    settings = {"trials": TRIALS, "epochs": EPOCHS, "train_limit": train_limit}
    file = measure.file_of("pruning")
    # A study takes up to an hour: those that are there stay. To measure one again, take it out of the file.
    known = json.loads(file.read_text()) if file.is_file() else {}
    rounds: list[dict[str, Any]] = known["rounds"] if settings.items() <= known.items() else []
    rounds += [{"seed": seed} for seed in range(len(rounds), repeats)]

    def options(seed: int) -> list[str]:
        return [
            *("study=simplenn", f"trainer.epochs={EPOCHS}", f"hydra.sweeper.n_trials={TRIALS}"),
            *(f"schedule.decay_epochs=range(3,{EPOCHS + 1})", "hydra.sweeper.n_jobs=1"),
            *(f"hydra.sweeper.sampler.seed={seed}", f"data.train_limit={train_limit or 'null'}"),
        ]

    # Side by side, with half of the cores each: epochs and accuracies are what counts, not seconds.
    with ThreadPoolExecutor(2) as pool:
        running = {
            pool.submit(_study_of, options(one["seed"]), name): (one, name)
            for one in rounds
            for name in (STOCK, OURS)
            if name not in one
        }
        for study in as_completed(running):
            one, name = running[study]
            one[name] = study.result()
            print(
                f"pruning  seed {one['seed']}, {name}: {one[name]['epochs']} epochs, best {one[name]['best']:.4f}",
                flush=True,
            )
            file = measure.write("pruning", settings | {"rounds": rounds, "summary": _summary(rounds)})
    return file


def whole(rounds: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the rounds of which both studies are there: the stock plugin's, and ours, which prunes."""
    return [one for one in rounds if {STOCK, OURS} <= one.keys()]


def _summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    if not (rounds := whole(rounds)):
        return {}
    fewer = [r[STOCK]["epochs"] / r[OURS]["epochs"] for r in rounds]
    gain = [100 * (r[OURS]["best"] - r[STOCK]["best"]) for r in rounds]
    return {"times_fewer_epochs": round(statistics.mean(fewer), 2), "points_gained": round(statistics.mean(gain), 2)}


def waiting(repeats: int) -> Path:
    """Times two workers against two jobs at a time under joblib, trials of 2 and of 20 epochs in random order.

    Args:
        repeats: pairs of studies; each shuffles the trials anew, both sweepers alike.
    """
    train_limit, seeds = 5000, 20
    times: dict[str, list[float]] = {STOCK: [], OURS: []}
    own = {
        STOCK: ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2"],
        OURS: ["hydra.sweeper.workers=2", "hydra/sweeper/pruner=none", "hydra.sweeper.plots=false"],
    }
    file = Path()
    for shuffle in range(repeats):
        options = [
            *("trainer.epochs=2,20", f"seed=choice({','.join(map(str, range(seeds)))})"),
            *(f"data.train_limit={train_limit}", f"hydra.sweeper.n_trials={2 * seeds}"),
            *("hydra/sweeper/sampler=grid", f"hydra.sweeper.sampler.seed={shuffle}"),
        ]
        for name in (OURS, STOCK):
            with tempfile.TemporaryDirectory() as folder:
                times[name].append(_sweep(name, folder, [*options, *own[name]]))
        ratio = statistics.median(o / s for o, s in zip(times[OURS], times[STOCK], strict=True))
        print(f"waiting  stock {times[STOCK]} s, two workers {times[OURS]} s: {ratio:.2f} of the time", flush=True)
        figures = {"train_limit": train_limit, "trials": 2 * seeds, "seconds": times, "ratio": round(ratio, 3)}
        file = measure.write("waiting", figures)
    return file


def overhead() -> Path:
    """Times trials of a millisecond with an MLflow run each, several workers on one SQLite file."""
    trials, workers = 200, 4
    with tempfile.TemporaryDirectory() as folder:
        app = Path(__file__).with_name("study_app.py")
        command = [str(app), "-m", "hydra/sweeper=study", "x=interval(-5.0,5.0)", "y=choice(1,2,3)"]
        command += [f"hydra.sweeper.n_trials={trials}", f"hydra.sweeper.workers={workers}", f"root={folder}"]
        run_command([*command, "hydra.sweeper.plots=false", f"hydra.sweep.dir={folder}/sweep"])
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder}/sweep/optuna.db")
        ended = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
        different = len({tuple(sorted(t.params.items())) for t in ended})
        milliseconds, beginning = _cost_of_a_trial(ended)
    print(
        f"overhead  {len(ended)} of {trials} trials, {different} different, {milliseconds:.0f} ms a trial "
        f"once every worker had ended its first, after {beginning:.1f} s"
    )
    figures: dict[str, Any] = {"trials": trials, "workers": workers, "complete": len(ended), "different": different}
    figures |= {"seconds_to_first_of_each_worker": round(beginning, 1)}
    return measure.write("overhead", figures | {"ms_per_trial": round(milliseconds, 1)})


def _cost_of_a_trial(trials: list[optuna.trial.FrozenTrial]) -> tuple[float, float]:
    """Returns milliseconds a trial, and the seconds until every worker had ended its first one.

    A first trial imports MLflow and makes the database; a study of real trials does not notice.
    """
    owners: dict[str, list[float]] = {}
    for trial in trials:
        assert trial.datetime_complete is not None
        owners.setdefault(owner_of(trial)["id"], []).append(trial.datetime_complete.timestamp())
    begin = max(min(ends) for ends in owners.values())
    ends = [end for several in owners.values() for end in several]
    first = min(trial.datetime_start.timestamp() for trial in trials if trial.datetime_start is not None)
    return 1000 * (max(ends) - begin) / sum(end > begin for end in ends), begin - first


def _study_of(options: list[str], name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        seconds = _sweep(name, folder, [*options, *ALONE[name]], threads=max(1, (os.cpu_count() or 1) // 2))
        return {"seconds": round(seconds), **_epochs_and_best(Path(folder))}


def _sweep(name: str, folder: str, options: list[str], threads: int | None = None) -> float:
    places = f"hydra.sweep.dir={folder}", f"hydra.sweeper.storage=sqlite:///{folder}/optuna.db"
    start = time.perf_counter()
    train("-m", *QUIET, *SWEEPERS[name], *options, *places, threads=threads)
    return round(time.perf_counter() - start, 1)


def train(*options: str, threads: int | None = None) -> None:
    """Runs `train.py` to its end, as `run_command` does."""
    run_command([str(PROJECT_ROOT / "train.py"), *options], threads)


def run_command(program: list[str], threads: int | None = None) -> None:
    """Runs a Python program to its end; `threads` of its own if given. Its last words are shown if it fails."""
    command = [sys.executable, *program]
    environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout.decode(errors='replace')[-3000:]}")


def _epochs_and_best(folder: Path) -> dict[str, Any]:
    results = [json.loads(file.read_text()) for file in folder.glob("*/result.json")]
    pruned = sum(result["state"] == "pruned" for result in results)
    best = max(result["value"] for result in results if result["state"] != "pruned")
    return {"epochs": sum(result["epochs"] for result in results), "pruned": pruned, "best": best}

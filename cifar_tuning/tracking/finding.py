"""Which runs a name means: a sweep's folder, a run's name or id, a study, an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cifar_tuning.errors import UserError
from cifar_tuning.tracking import facts, sweeps

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Names that an error proposes, and how many of the newest runs it looks at for them.
PROPOSED, LOOKED_AT = 12, 1000
# Sweeps of one name that a note tells, each with its folder.
NAMESAKES = 5


def find_parent(client: MlflowClient, name: str, root: Path) -> tuple[Run | None, list[Run]]:
    """Returns the run that a sweep's runs are nested in, and older ones of the same name; None if it is no sweep's.

    Args:
        client: of the store.
        name: a folder, also just its name below multirun/; the name or id of a run; the name of a study.
        root: the project's folder.

    Raises:
        UserError: it means a sweep that can't be read from this store.
    """
    run, others = _by_folder(client, name, root) or _get(client, name), []
    if run is None and (named := _by_name(client, name)):
        run, *others = named
    if run is not None and run.info.lifecycle_stage == "deleted":
        raise UserError(
            f"sweep={name}: its run {run.info.run_id} was deleted. `mlflow gc` has not removed it yet: "
            f"`mlflow runs restore --run-id {run.info.run_id}` brings it back."
        )
    return run, others


def find_below(client: MlflowClient, name: str) -> tuple[Run | None, list[Run]]:
    """Returns the sweep whose name ends in `/name`, and older ones: `wide` of a `multirun/wide` in another folder."""
    quote = '"' if "'" in name else "'"
    found = _nesting(client, f"tags.`mlflow.runName` LIKE {quote}%/{name}{quote}")
    # A name may have what LIKE takes for a wildcard.
    same = [run for run in found if run.info.run_name.rpartition("/")[2] == name]
    return (same[0], same[1:]) if same else (None, [])


def namesakes_in_words(name: str, taken: Run, others: list[Run]) -> list[str]:
    """Returns a sentence that says which of several sweeps of one name was taken; none if there is one only."""
    if not others:
        return []
    folders = [_place(run) for run in others[:NAMESAKES]]
    more = f" and {len(others) - NAMESAKES} more" if len(others) > NAMESAKES else ""
    return [
        f"{len(others) + 1} sweeps are called `{name}`: this is the newest, {_place(taken)}; "
        f"`sweep=` with another's folder or run reports that: {', '.join(folders)}{more}."
    ]


def _place(run: Run) -> str:
    where = f"`{run.data.tags[facts.FOLDER]}` " if facts.FOLDER in run.data.tags else ""
    return f"{where}(run `{run.info.run_id}`)"


def leaves(client: MlflowClient, parent: Run) -> list[tuple[Run, Run | None]]:
    """Returns the runs below a run that have none below them, in the order they began; the run itself without any.

    Each comes with the run that it is nested in, if that is not the one asked for: the trial whose seed it is.
    """
    nested: dict[str, list[Run]] = {}
    # One search for the whole experiment: a search for each of 300 jobs would take a minute.
    for run in sweeps.search(client, [parent.info.experiment_id]):
        nested.setdefault(run.data.tags.get(facts.PARENT, ""), []).append(run)
    found: list[tuple[Run, Run | None]] = []
    open_: list[tuple[Run, Run | None]] = [(parent, None)]
    while open_:
        run, within = open_.pop()
        children = nested.get(run.info.run_id, [])
        open_ += [(child, None if run is parent else run) for child in reversed(children)]
        if not children:
            found.append((run, within))
    return found


def leaves_of_experiment(client: MlflowClient, experiment: str) -> list[tuple[Run, Run | None]]:
    """Returns an experiment's runs that have none below them, each with the run that it is nested in."""
    everything = sweeps.search(client, [experiment])
    known = {run.info.run_id: run for run in everything}
    within = {run.info.run_id: known.get(run.data.tags.get(facts.PARENT, "")) for run in everything}
    parents = {run.info.run_id for run in within.values() if run is not None}
    return [(run, within[run.info.run_id]) for run in everything if run.info.run_id not in parents]


def unknown(client: MlflowClient, name: str, root: Path, shown: str) -> str:
    """Returns what to say of a name that means nothing here: what it could have been."""
    folder = next((f for f in _folders(name, root) if f.is_dir()), None)
    if folder is not None:
        return (
            f"sweep={name}: the folder has no {sweeps.MARKER}, so it is no sweep's that was tracked in MLflow; "
            "give the folder of a multirun, not of one job, that ran with tracking=mlflow."
        )
    experiments = client.search_experiments()
    runs = client.search_runs(
        [e.experiment_id for e in experiments], order_by=["attributes.start_time DESC"], max_results=LOOKED_AT
    )
    parents = {run.data.tags.get(facts.PARENT) for run in runs}
    sweeps_ = [run for run in runs if run.info.run_id in parents and facts.PARENT not in run.data.tags]
    names = list(dict.fromkeys(run.info.run_name for run in sweeps_))[:PROPOSED]
    known = f"the newest sweeps there are {', '.join(names)}" if names else "there is no sweep in it"
    return (
        f"sweep={name}: is neither a sweep's folder, nor a sweep, study or experiment in {shown}; {known}; "
        f"its experiments are {', '.join(e.name for e in experiments)}."
    )


def _folders(name: str, root: Path) -> tuple[Path, Path]:
    return Path(name).expanduser(), root / "multirun" / name


def folder_of(name: str, root: Path) -> Path | None:
    """Returns the folder of a sweep that was tracked, if the name is one's."""
    return next((folder.absolute() for folder in _folders(name, root) if (folder / sweeps.MARKER).is_file()), None)


def _by_folder(client: MlflowClient, name: str, root: Path) -> Run | None:
    folder = folder_of(name, root)
    if folder is None:
        return None
    run_id = (folder / sweeps.MARKER).read_text().strip()
    run = _get(client, run_id)
    if run is None:
        raise UserError(
            f"sweep={name}: its run {run_id} is not in this store; give the one it was tracked in (tracking.uri=…)."
        )
    return run


def _get(client: MlflowClient, run_id: str) -> Run | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            return None
        raise


def _by_name(client: MlflowClient, name: str) -> list[Run]:
    """Returns the sweeps, or else the studies, of a name, the newest first."""
    quote = '"' if "'" in name else "'"
    return _nesting(client, f"tags.`mlflow.runName` = {quote}{name}{quote}") or _nesting(
        client, f"params.`hydra.sweeper.study_name` = {quote}{name}{quote}"
    )


def _nesting(client: MlflowClient, query: str) -> list[Run]:
    """Returns the sweeps that a query finds: a job has the name of its overrides, in a sweep others are nested."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, query, order_by=["attributes.start_time DESC"], max_results=50)
    return [run for run in runs if _has_nested(client, run)]


def _has_nested(client: MlflowClient, run: Run) -> bool:
    query = f"tags.`{facts.PARENT}` = '{run.info.run_id}'"
    return bool(client.search_runs([run.info.experiment_id], query, max_results=1))

"""Files of finished runs, fetched back from the store."""

from __future__ import annotations

from pathlib import Path

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.errors import TrackingError
from cifar_tuning.tracking.store import connect, locate

BEST_RUN = "best.run_id"


def download_artifact(uri: str | None, run_id: str, name: str, folder: Path, root: Path = PROJECT_ROOT) -> Path:
    """Fetch one file of a run.

    Args:
        uri: tracking URI; None for the default store.
        run_id: the run; a multirun's stands for its best job's.
        name: the file's path in the run, such as `checkpoints/best.pt`.
        folder: where to put it.
        root: the project's folder.

    Raises:
        TrackingError: there is no such store, run or file.
    """
    location = locate(uri, root)
    # Looking for a run must not leave an empty database behind.
    problem = location.problem(timeout=3)
    if problem is not None:
        raise TrackingError(f"tracking.uri={location.shown}: {problem}; so run {run_id} can't be looked up.")
    client = connect(location)
    from mlflow.exceptions import MlflowException

    try:
        # A multirun's own run keeps no checkpoint; its best job's run does.
        run_id = client.get_run(run_id).data.tags.get(BEST_RUN, run_id)
    except MlflowException as error:
        raise TrackingError(
            f"tracking.uri={location.shown} knows no run {run_id}. "
            "Give the store it was tracked in (tracking.uri=…), or the run's folder or checkpoint instead."
        ) from error
    try:
        return Path(client.download_artifacts(run_id, name, str(folder)))
    except Exception as error:  # every artifact store has its own way to say no
        kept = sorted(item.path for item in client.list_artifacts(run_id))
        raise TrackingError(
            f"Run {run_id} has no {name} (it keeps {', '.join(kept) or 'no files'}): "
            "a run that failed or was killed has none; its folder may still have a checkpoint."
        ) from error

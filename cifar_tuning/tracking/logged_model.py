"""A trained classifier as an MLflow LoggedModel that predicts from raw images."""

from __future__ import annotations

import importlib.metadata
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from torch import nn

log = logging.getLogger(__name__)

NAME = "model"
# Of its run, what the model's own page shows and models are sorted by: figures of the weights it has, and its origin.
METRICS = ("val/acc_best", "test/acc", "model/parameters", "model/macs")
TAGS = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit")


def log_classifier(client: MlflowClient, run_id: str, model: nn.Module, example: np.ndarray) -> str:
    """Log a classifier of uint8 images (N×H×W×C) to a run.

    The model is kept as an exported graph (MLflow's `pt2` format): it opens without this package and runs
    no pickled code. `mlflow.pytorch.log_model` would do the same through MLflow's global current run and
    tracking URI; here every step is given both.

    Args:
        client: the store.
        run_id: the run that trained it.
        model: takes uint8 images, returns logits; in evaluation mode, on the CPU.
        example: some images.

    Returns:
        The model's id, which opens it: `mlflow.pytorch.load_model("models:/<id>")`.
    """
    import mlflow.pytorch
    import numpy as np
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    if len(example) < 2:
        # torch.export takes a size of one for a constant; with two it leaves the batch size open.
        example = np.repeat(example, 2, axis=0)
    example = np.ascontiguousarray(example[:2])
    with (
        _opened(client, run_id) as logged,
        tempfile.TemporaryDirectory() as temporary,
        warnings.catch_warnings(),
        _unchecked_requirements(),
    ):
        warnings.simplefilter("ignore")  # torch.export's and MLflow's, about their own insides
        folder = Path(temporary) / NAME
        mlflow.pytorch.save_model(
            model.eval(),
            str(folder),
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                run_id=run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
            ),
            signature=_signature(model, example),
            input_example=example,
            # Given, or MLflow finds them out by loading the model in another process.
            pip_requirements=_requirements(),
            serialization_format="pt2",
        )
        if (size := _fixed_batch(folder)) is not None:
            log.warning(
                "The model in MLflow takes batches of %d images and of no other number, for torch.export took that for "
                "a constant in its code: `len(x)` makes one, x.shape[0] none. Its checkpoint takes any number.",
                size,
            )
        client.log_model_artifacts(logged.model_id, str(folder))
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    _log_figures(client, run_id, str(logged.model_id))
    return str(logged.model_id)


def _log_figures(client: MlflowClient, run_id: str, model_id: str) -> None:
    """Puts the run's last figures on its model, too, which leaves the run's own as they are."""
    from mlflow.entities import Metric

    run = client.get_run(run_id)
    datasets = run.inputs.dataset_inputs if run.inputs is not None else []
    of = {"dataset_name": datasets[0].dataset.name, "dataset_digest": datasets[0].dataset.digest} if datasets else {}
    known = [metric for metric in run.data._metric_objs if metric.key in METRICS]
    client.log_batch(
        run_id,
        metrics=[
            Metric(one.key, one.value, one.timestamp, one.step, model_id=model_id, **(of if "acc" in one.key else {}))
            for one in known
        ],
    )


@contextmanager
def _opened(client: MlflowClient, run_id: str) -> Iterator[LoggedModel]:
    """Opens an entry for a run's model, which is ready at the end of the context, or has failed by an error."""
    run = client.get_run(run_id)
    if run.info.lifecycle_stage != "active":
        raise LookupError(f"run {run_id} was deleted")
    logged = client.create_logged_model(
        run.info.experiment_id,
        name=NAME,
        source_run_id=run_id,
        params=run.data.params,
        tags={name: run.data.tags[name] for name in TAGS if name in run.data.tags},
        model_type="classifier",
    )
    status: Literal["READY", "FAILED"] = "FAILED"
    try:
        yield logged
        status = "READY"
    finally:
        client.finalize_logged_model(logged.model_id, status)


def _signature(model: nn.Module, example: np.ndarray) -> Any:
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    with torch.no_grad():
        logits = model(torch.from_numpy(example)).numpy()
    return ModelSignature(
        inputs=Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))]),
        outputs=Schema([TensorSpec(logits.dtype, (-1, *logits.shape[1:]))]),
    )


def _fixed_batch(folder: Path) -> int | None:
    """Returns the number of images that a saved model is bound to; None if it takes any."""
    import torch

    program = torch.export.load(next(folder.rglob("*.pt2")))
    inputs = program.graph_signature.user_inputs
    sizes = [node.meta["val"].shape[0] for node in program.graph.nodes if node.name in inputs]
    return next((size for size in sizes if isinstance(size, int)), None)


def _requirements() -> list[str]:
    # Without the build (2.13.0+cpu): package indexes have the version alone, and every build is one of it.
    versions = {name: importlib.metadata.version(name).partition("+")[0] for name in ("mlflow", "torch", "numpy")}
    return [f"{name}=={version}" for name, version in versions.items()]


@contextmanager
def _unchecked_requirements() -> Iterator[None]:
    """Keeps MLflow from comparing the requirements with what is installed, where `_requirements` has them from.

    MLflow reads the metadata of every installed package for it, 0.4 s, and has no option not to. The function is not
    of its public interface; a version that has it elsewhere compares them.
    """
    from mlflow.utils import environment

    name = "warn_dependency_requirement_mismatches"
    compare = getattr(environment, name, None)
    if compare is None:
        yield
        return
    setattr(environment, name, lambda requirements: None)
    try:
        yield
    finally:
        setattr(environment, name, compare)

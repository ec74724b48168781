"""Runs one job: the one way from a composed configuration to a validation accuracy."""

import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cifar_tuning.data.batches import EvalBatches, TrainBatches
from cifar_tuning.jobs.build import Parts, build, make_optimizer, plain, seed_everything
from cifar_tuning.jobs.callback import OVERRIDES_FILE
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.checkpoint import Checkpoint
from cifar_tuning.training.display import describe_device, memory_in_use
from cifar_tuning.training.events import EpochMetrics, Listener, Result
from cifar_tuning.training.loop import Trainer
from cifar_tuning.training.precision import resolve_precision
from cifar_tuning.training.schedules import Schedule
from cifar_tuning.training.settings import place, resolve_device

log = logging.getLogger(__name__)

# Without gradients nothing is kept, so batches can be larger than in training; more gains nothing on a CPU.
EVAL_BATCH = 500
RESULT_FILE = "result.json"


@dataclass(frozen=True)
class JobResult:
    """What a job leaves in its folder for whoever sums up a sweep."""

    state: str
    value: float | None
    best_epoch: int | None
    epochs: int
    seconds: float
    overrides: list[str]
    run_id: str | None
    error: str | None = None

    def write(self, folder: Path) -> None:
        """Writes the result into the job's folder, all or nothing."""
        partial = folder / f".{RESULT_FILE}.tmp"
        partial.write_text(json.dumps(asdict(self), indent=1))
        partial.replace(folder / RESULT_FILE)


class EpochTracking(Listener):
    """Hands every epoch to the tracker, in one call."""

    def __init__(self, tracker: Any) -> None:
        self.tracker = tracker

    def on_epoch(self, metrics: EpochMetrics) -> bool:
        """Logs the epoch's figures; a figure that does not exist (a diverged epoch's accuracy) is left out."""
        named = {name: value for name, value in metrics.named().items() if not math.isnan(value)}
        self.tracker.log_epoch(named, metrics.epoch)
        return False


def run(cfg: DictConfig) -> float:
    """Trains one configuration and returns its best validation accuracy.

    Raises:
        ConfigError: the configuration is wrong; nothing was trained or written to the tracking store.
        DataError: the dataset can't be had.
        TrackingError: the tracking store can't be reached.
        UserError: the checkpoint to resume from is unreadable or another model's.
    """
    start = time.perf_counter()
    hydra = HydraConfig.get()
    folder, overrides = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
    tracker: Any = None
    try:
        parts, checkpoint = prepare(cfg)
        config = plain(cfg)
        tracker = parts.tracking
        tracker.start(_context(config, hydra, folder, checkpoint))
        result = _train(parts, config, folder, checkpoint)
        _export(result, parts, folder, single_run=hydra.mode == RunMode.RUN)
    except BaseException as error:
        if tracker is not None:
            tracker.fail(error)
        stopped = not isinstance(error, Exception)
        _result("killed" if stopped else "failed", None, start, overrides, tracker, error).write(folder)
        raise
    _result(result.state, result, start, overrides, tracker).write(folder)
    tracker.finish(result.state)
    log.info(
        "%s: best validation accuracy %.4f in epoch %d; checkpoints and pictures in %s",
        result.state,
        result.value,
        result.progress.best_epoch,
        folder,
    )
    return result.value


def prepare(cfg: DictConfig) -> tuple[Parts, Checkpoint | None]:
    """Builds everything that can be wrong before any compute is spent.

    Returns:
        the parts, the model holding its initial or resumed weights, and the checkpoint to resume from.
    """
    resumed = checkpoints.load(cfg.resume) if cfg.resume is not None else None
    seed = cfg.seed if isinstance(cfg.seed, int) and cfg.seed >= 0 else 0  # `build` reports a wrong one
    seed_everything(seed, deterministic=OmegaConf.select(cfg, "trainer.deterministic") is True)
    parts = build(cfg)
    if resumed is not None:
        checkpoints.load_weights(parts.model, resumed, cfg.resume)
    return parts, resumed


def _train(parts: Parts, config: dict[str, Any], folder: Path, checkpoint: Checkpoint | None) -> Result:
    device = resolve_device(parts.trainer.device)
    before = memory_in_use(device)
    model = place(parts.model, device)
    train, val = make_batches(parts, config["seed"], device)
    height, width, channels = train.image_shape
    _log_facts(parts, (channels, height, width))
    batch_shape = (parts.data.batch_size, channels, height, width)
    precision = resolve_precision(parts.trainer.precision, model, device, batch_shape)
    log.info(describe_device(device, precision, before))
    optimizer = make_optimizer(parts)
    trainer = Trainer(
        model,
        optimizer,
        Schedule(parts.schedule, optimizer, parts.trainer.epochs, len(train)),
        parts.regularizer,
        train,
        val,
        epochs=parts.trainer.epochs,
        device=device,
        precision=precision,
        compile=parts.trainer.compile,
        folder=folder,
        config=config,
        run_id=parts.tracking.run_id,
        listeners=[EpochTracking(parts.tracking)],
    )
    if checkpoint is not None:
        trainer.resume(checkpoint)
        if not parts.tracking.continued:  # a new run gets the curves from their beginning
            for metrics in checkpoint.progress.history:
                EpochTracking(parts.tracking).on_epoch(metrics)
        log.info("resuming after epoch %d of %d", checkpoint.progress.epoch, parts.trainer.epochs)
    return trainer.fit()


def make_batches(parts: Parts, seed: int, device: torch.device) -> tuple[TrainBatches, EvalBatches]:
    """Loads the data, onto the device, as training and validation batches."""
    data = parts.data
    splits = data.load()
    common = {"mean": data.mean, "std": data.std, "device": device}
    train = TrainBatches(
        splits.train.stored,
        splits.train.labels,
        rows=splits.train.rows,
        batch_size=data.batch_size,
        augmentation=parts.augmentation,
        seed=seed,
        **common,
    )
    val = EvalBatches(splits.val.images, splits.val.labels, batch_size=EVAL_BATCH, **common)
    return train, val


def _log_facts(parts: Parts, image_shape: tuple[int, int, int]) -> None:
    from cifar_tuning.models.facts import count_macs, count_parameters

    parameters, macs = count_parameters(parts.model), count_macs(parts.model, image_shape)
    parts.tracking.log_facts({"model/parameters": parameters, "model/macs": macs})
    log.info("%s: %s parameters, %s MACs per image", type(parts.model).__name__, f"{parameters:,}", f"{macs:,}")


def _export(result: Result, parts: Parts, folder: Path, single_run: bool) -> None:
    """Draws the run's pictures and hands them and the best checkpoint to the tracker."""
    from cifar_tuning.reporting import plots

    files = {
        "learning_curves.png": plots.learning_curves(result.progress.history, folder / "learning_curves.png"),
        "confusion_matrix.png": plots.confusion_matrix(
            result.progress.confusion, parts.data.classes, folder / "confusion_matrix.png"
        ),
        "checkpoints/best.pt": folder / "best.pt",
    }
    # A resumed run that never beat its past has its best weights in the folder it came from.
    parts.tracking.log_artifacts({name: file for name, file in files.items() if file.is_file()})
    if parts.tracking.wants_model(single_run=single_run):
        from cifar_tuning.jobs.export import load_classifier

        parts.tracking.log_model(*load_classifier(folder))


def _context(config: dict[str, Any], hydra: Any, folder: Path, checkpoint: Checkpoint | None) -> Any:
    from cifar_tuning.tracking import RunContext

    multirun = hydra.mode == RunMode.MULTIRUN
    overrides = list(hydra.overrides.task)
    model = str(config["model"]["_target_"]).rpartition(".")[2]
    return RunContext(
        name=_job_name(hydra, overrides) if multirun else f"{model} seed={config['seed']}",
        config=config,
        overrides=overrides,
        folder=folder,
        seed=config["seed"],
        sweep_dir=Path(hydra.sweep.dir).absolute() if multirun else None,
        job_num=int(hydra.job.num) if multirun else None,
        tags={},
        run_id=checkpoint.run_id if checkpoint else None,
    )


def _job_name(hydra: Any, overrides: list[str]) -> str:
    """Returns the job's number and the overrides that tell it from the sweep's other jobs."""
    file = Path(hydra.sweep.dir) / OVERRIDES_FILE
    common = list(OmegaConf.load(file)) if file.is_file() else []  # another host may not see the folder
    typed = {str(override).replace("\\", "") for override in common}  # Hydra adds escapes to what was typed
    own = [override for override in overrides if override.replace("\\", "") not in typed]
    return f"{hydra.job.num}: {' '.join(own)}"[:200]


def _result(
    state: str,
    result: Result | None,
    start: float,
    overrides: list[str],
    tracker: Any,
    error: BaseException | None = None,
) -> JobResult:
    return JobResult(
        state=state,
        value=result.value if result else None,
        best_epoch=result.progress.best_epoch if result else None,
        epochs=result.progress.epoch if result else 0,
        seconds=round(time.perf_counter() - start, 3),
        overrides=overrides,
        run_id=tracker.run_id if tracker is not None else None,
        error=f"{type(error).__name__}: {error}" if error is not None else None,
    )

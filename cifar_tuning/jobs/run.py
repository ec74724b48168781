"""Runs one job: the one way from a composed configuration to its objective, a validation accuracy as a rule."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cifar_tuning.errors import DataError, UserError, full_disk, wants_traces
from cifar_tuning.jobs.context import run_context
from cifar_tuning.jobs.export import load_classifier, model_from_checkpoint
from cifar_tuning.jobs.missing_multirun import missing_multirun
from cifar_tuning.jobs.parts import Parts
from cifar_tuning.jobs.prepare import Prepared, job_config, own_checkpoint, prepare, where_typed
from cifar_tuning.jobs.process import collect_garbage
from cifar_tuning.jobs.result import RESULT_FILE, JobResult, objective
from cifar_tuning.jobs.testing import label_test_images, test_figures
from cifar_tuning.jobs.training import make_trainer
from cifar_tuning.jobs.used_folder import has_trained, only_here, put_aside
from cifar_tuning.overrides import job_overrides
from cifar_tuning.processes import deferred_signals
from cifar_tuning.ranking import BEST_ACCURACY, ENDED
from cifar_tuning.reporting import plots
from cifar_tuning.targets import is_study
from cifar_tuning.text import typed, without_password
from cifar_tuning.tracking.base import TRACEBACK, Tracker
from cifar_tuning.training.events import Progress, Result
from cifar_tuning.training.measurement_cache import of_sweep
from cifar_tuning.training.memory import out_of_memory
from cifar_tuning.training.probe import Formats
from cifar_tuning.training.settings import resolve_device
from cifar_tuning.training.trainer import Trainer
from cifar_tuning.tuning.place import LostTrial, is_retrained, objectives_of, repeat_of, sweep_folder

if TYPE_CHECKING:
    from cifar_tuning.tuning.trial import TrialReporter

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Any:
    """Trains one configuration and returns its objective.

    Returns:
        the best validation accuracy, or the figure that `objective` names; a list where it names several. None without
        validation (`data.val_size=0`).

    Raises:
        ConfigError: the configuration is wrong; nothing was trained or written to the tracking store.
        DataError: the dataset can't be had.
        TrackingError: the tracking store can't be reached.
        UserError: the checkpoint to resume from is another model's, or no command of Hydra's is running.
    """
    if not HydraConfig.initialized():
        raise UserError(
            "A configuration alone can't be trained: where its run goes, and which job of a sweep it is, Hydra decides "
            "for a command. Type `python train.py …` with the same overrides; in a notebook call "
            '`cifar_tuning.jobs.notebook.train("optimizer.lr=0.1", …)`.'
        )
    return Job(HydraConfig.get()).run(cfg)


class Job:
    """One job in its folder.

    Args:
        hydra: Hydra's own part of the configuration.
    """

    def __init__(self, hydra: Any) -> None:
        self.hydra = hydra
        self.folder = Path(hydra.runtime.output_dir)
        self.overrides = job_overrides(hydra)
        self.multirun = hydra.mode == RunMode.MULTIRUN
        self.start = time.perf_counter()
        self.tracker: Tracker | None = None
        self.trainer: Trainer | None = None
        self.reporter: TrialReporter | None = None
        self.figures: dict[str, float] = {}
        self.chosen: dict[str, str] = {}
        self.again = self.over = False
        self.earlier = 0.0  # seconds that earlier processes trained
        self.test_acc: float | None = None
        self.objective: dict[str, float | None] | None = None

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        return self.trainer.progress if self.trainer is not None else Progress()

    def run(self, cfg: DictConfig) -> Any:
        """Trains and returns the objective; however it ends, the folder and the store say so.

        Raises:
            UserError: another process works in the folder.
        """
        # A trial is one process's, which its study sees to; a single run's folder was taken before Hydra wrote there.
        taken = is_study(self.hydra) or not self.multirun
        without_m = None if self.multirun else missing_multirun(self.hydra)
        if without_m is not None:
            log.warning(without_m)
        # All jobs of a sweep are computed in the formats that one measurement found.
        measured = of_sweep(sweep_folder(self.hydra)) if self.multirun else nullcontext()
        with nullcontext() if taken else only_here(self.folder, "hydra.sweep.dir"), measured:
            value = self._run(cfg)
        if without_m is not None:  # what stood before the epochs is out of sight
            log.warning(without_m)
        return value

    def _run(self, cfg: DictConfig) -> Any:
        try:
            cfg = where_typed(cfg, Path(self.hydra.runtime.cwd))
            self.reporter = self._reporter(cfg)
            if self.multirun:  # a process that died had begun it, or its launcher began it anew
                # A study knows; a grid's may have died behind its run in the store and before its first checkpoint.
                asked = self.reporter is None or self.reporter.again
                self.again = asked or (self.folder / "last.pt").is_file()
            if (known := self._finished(cfg)) is not None:
                return known.value
            prepared = prepare(cfg, own=self.folder if self.again else None)
            if not self.multirun:
                self._keep_what_is_there(prepared)
            self._open_run(prepared)
            result = self._train(prepared)
            names = objectives_of(cfg)
            value = objective(names, result, self.figures)
            self.objective = dict(zip(names, [value] if len(names) == 1 else value, strict=True))
            self._keep_files(result, prepared)
            if self.multirun and is_retrained(self.hydra):
                self._test(prepared)
            with deferred_signals():  # or it would have ended here and not there
                self._end(result, value, prepared.parts)
        except LostTrial:  # its folder and its run are another process's now
            if self.tracker is not None:
                self.tracker.abandon()
            raise
        except BaseException as error:
            if not self.over:
                self._fail(error)
            if (lack := self._what_is_lacking(cfg, error)) is not None:
                raise lack from error
            raise
        log.info("%s: %s in %s", result.state, self._in_words(result), self.folder)
        return value

    def _end(self, result: Result, value: Any, parts: Parts) -> None:
        """Tells the folder, the store and the study, whose run is over once the first two know."""
        self._write_result(result.state, stopped=result.stopped)
        (self.folder / TRACEBACK).unlink(missing_ok=True)  # of a process that was stopped before
        of_trial = None if self.reporter is None else self.reporter.of_trial(result.state)
        parts.tracking.finish(result.state, of_trial)
        self.over = True
        if self.reporter is not None:
            self.reporter.ended(result.state, value, result.progress.epoch, parts.trainer.epochs)

    def _open_run(self, prepared: Prepared) -> None:
        self.tracker = prepared.parts.tracking
        self.tracker.start(run_context(self.hydra, prepared, self.folder, self.again))
        if self.reporter is not None:
            self.reporter.began(self.tracker.run_id, self.folder)

    def _in_words(self, result: Result) -> str:
        if result.value is not None:
            best = f"best validation accuracy {result.value:.4f} in epoch {result.progress.best_epoch}"
            return f"{best}; checkpoints and pictures"
        assert self.trainer is not None
        images = f"trained on {self.trainer.train.count:,} images, no validation accuracy"
        return f"{images}; the weights of epoch {result.progress.best_epoch} and learning curves"

    def _finished(self, cfg: DictConfig) -> JobResult | None:
        """Returns what an earlier call of a grid's command trained already; puts aside what another job left."""
        if not self.multirun or not has_trained(self.folder):
            return None
        known = JobResult.read(self.folder)
        if own_checkpoint(job_config(cfg), self.folder)[0] is None:  # the folder is another experiment's
            put_aside(self.folder, self.overrides, "hydra.sweep.dir=multirun/NAME")
            return None
        if self.reporter is not None or known is None or known.state not in ENDED:
            return None
        if objectives_of(cfg) != [BEST_ACCURACY]:
            return None
        (self.folder / RESULT_FILE).touch()  # it belongs to this sweep's table
        value = "without validation" if known.value is None else f"best validation accuracy {known.value:.4f}"
        log.info("finished already: %s in %s", value, self.folder)
        return known

    def _keep_what_is_there(self, prepared: Prepared) -> None:
        """Puts aside what an earlier run left in a single run's folder, unless this one goes on with it."""
        file = prepared.checkpoint_file
        goes_on = file is not None and file.resolve().parent == self.folder.resolve()
        if not goes_on and has_trained(self.folder):
            put_aside(self.folder, self.overrides, "hydra.run.dir=outputs/NAME")

    def _reporter(self, cfg: DictConfig) -> TrialReporter | None:
        """Returns the link to this job's trial, if it is one of a study."""
        if not self.multirun or not is_study(self.hydra):
            return None
        from cifar_tuning.tuning.trial import TrialReporter, current_trial

        trial = current_trial(self.hydra)
        if trial is None:
            return None
        repeat = repeat_of(self.hydra)
        last = repeat + 1 >= self.hydra.sweeper.repeats
        return TrialReporter(trial, int(cfg.trainer.epochs), repeat, objectives_of(cfg), last)

    def _test(self, prepared: Prepared) -> None:
        """Reads the test set: once for each seed of a study's winner, which nothing was chosen by."""
        model, data = model_from_checkpoint(self.folder / "best.pt")
        try:
            predicted, labels = label_test_images(model, data, resolve_device(prepared.parts.trainer.device))
        except DataError as error:  # there may be none; the training was no less good
            log.warning("The winner was not tested: %s", error)
            return
        figures = test_figures(predicted, labels)
        self.test_acc = figures["test/acc"]
        prepared.parts.tracking.log_facts(figures)
        log.info("test accuracy %.4f", self.test_acc)

    def _train(self, prepared: Prepared) -> Result:
        collect_garbage()
        listeners = [self.reporter] if self.reporter is not None else []
        trainer, self.figures = make_trainer(prepared, self.folder, listeners)
        self.trainer, self.earlier = trainer, sum(one.epoch_seconds for one in trainer.progress.history)
        self.chosen = {
            f"trainer.{name}": str(getattr(trainer, name))
            for name in Formats._fields
            if prepared.config["trainer"].get(name) == "auto"
        }
        plots.load_meanwhile()
        return trainer.fit()

    def _keep_files(self, result: Result, prepared: Prepared) -> None:
        """Draws the run's pictures and hands them, the best checkpoint and the model to the tracker."""
        parts = prepared.parts
        # To try something on a few images, nobody waits a second or two for a model to deploy.
        worth_keeping = not self.multirun and prepared.config["data"].get("train_limit") is None
        try:
            pictures = [plots.learning_curves(result.progress.history, self.folder / "learning_curves.png")]
            if result.progress.confusion:
                matrix = self.folder / "confusion_matrix.png"
                pictures.append(plots.confusion_matrix(result.progress.confusion, parts.data.classes, matrix))
            best = self.folder / "best.pt"
            files = {**{picture.name: picture for picture in pictures}, "checkpoints/best.pt": best}
            parts.tracking.log_artifacts({name: file for name, file in files.items() if file.is_file()})
            if parts.tracking.wants_model(worth_keeping) and best.is_file():
                parts.tracking.log_model(*load_classifier(self.folder))
        except Exception as error:  # a full disk or a plotting error must not make a failure of a finished training
            traces = wants_traces(log) or full_disk(error) is None
            log.warning("The run is trained, but not all of its files could be kept: %s", error, exc_info=traces)

    def _fail(self, error: BaseException) -> None:
        stopped = not isinstance(error, Exception)
        if stopped and not self.multirun and self.progress.started:  # what goes on with a sweep, that says itself
            resume = typed("resume", self.folder)
            log.warning("Stopped after epoch %d; go on with the same command and %s", self.progress.epoch, resume)
        if self.tracker is not None:
            self.tracker.fail(error)
        if (stopped or not self.multirun) and self.trainer is None and has_trained(self.folder):
            return  # what is there is still what an earlier process came to
        try:
            self._write_result(
                "killed" if stopped else "failed", f"{type(error).__name__}: {without_password(str(error))}"
            )
        except OSError as full:  # it must not take the place of Ctrl-C, which ends the whole sweep
            log.warning("How the run ended could not be written to %s: %s", self.folder, full)

    def _what_is_lacking(self, cfg: DictConfig, error: BaseException) -> UserError | None:
        """Returns what to say of a machine without memory or room on its disk; None of any other error."""
        if (reason := out_of_memory(error)) is not None:
            size = OmegaConf.select(cfg, "data.batch_size")
            return UserError(f"{reason} A smaller data.batch_size (it is {size}) or model needs less.")
        goes_on = not self.multirun and (self.folder / "last.pt").is_file()
        more = f" with {typed('resume', self.folder)}" if goes_on else ""
        return full_disk(error, f"the same command{more} goes on, in {self.folder}")

    def _write_result(self, state: str, error: str | None = None, stopped: str | None = None) -> None:
        value = self.progress.best_acc if self.progress.started else None
        JobResult(
            state=state,
            value=value,
            best_epoch=None if value is None else self.progress.best_epoch,
            epochs=self.progress.epoch,
            seconds=round(self.earlier + time.perf_counter() - self.start, 3),
            overrides=self.overrides,
            run_id=self.tracker.run_id if self.tracker is not None else None,
            error=error,
            test_acc=self.test_acc,
            objective=self.objective,
            chosen=self.chosen,
            stopped=stopped,
        ).write(self.folder)

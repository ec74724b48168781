"""The `result.json` that a job leaves in its folder, for whatever sums up a sweep."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_tuning.files import write_text
from cifar_tuning.training.events import BALANCED

if TYPE_CHECKING:
    from cifar_tuning.training.events import Result

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class JobResult:
    """How a job ended.

    Attributes:
        state: complete, diverged, pruned, failed or killed.
        value: best validation accuracy; None if no epoch was evaluated, or there is no validation.
        best_epoch: the epoch it belongs to.
        epochs: finished epochs.
        seconds: of the whole job, with the epochs that it went on from.
        overrides: what told the job from the default configuration.
        run_id: its MLflow run, if it has one.
        error: what went wrong, in a line.
        test_acc: accuracy of the best weights on the test set, for a study's retrained winner only.
        objective: what a sweep optimises, by name; None where the job came to no end.
        chosen: what measuring chose for options that were `auto`, by dotted key.
        stopped: after which epoch, and why, a complete run ended before its last one.
    """

    state: str
    value: float | None
    best_epoch: int | None
    epochs: int
    seconds: float
    overrides: list[str]
    run_id: str | None
    error: str | None = None
    test_acc: float | None = None
    objective: dict[str, float | None] | None = None
    chosen: dict[str, str] | None = None
    stopped: str | None = None

    def write(self, folder: Path) -> None:
        """Writes the result into the job's folder, all or nothing."""
        write_text(folder / RESULT_FILE, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> "JobResult | None":
        """Returns what a job left in its folder; None if nothing that can be read."""
        try:
            return cls(**json.loads((folder / RESULT_FILE).read_text()))
        except (OSError, ValueError, TypeError):
            return None


def objective(names: list[str], result: "Result", figures: Mapping[str, float]) -> Any:
    """Returns what a sweep optimises: the figure that is asked for, or a list of several.

    None stands for a figure of validation in a run without any.

    Args:
        names: of metrics or facts.
        result: of the training.
        figures: facts of the model.
    """
    history = result.progress.history
    finite = [m for m in history if math.isfinite(m.train_loss) and (m.val_loss is None or math.isfinite(m.val_loss))]
    # Of a run that diverged at once the last sound epoch is the one before training, which took no time.
    last = (finite or history)[-1]
    known = {**history[-1].named(), **last.named(), **figures}
    validated = {} if result.value is None else {"val/acc_best": result.value, BALANCED: last.figure(BALANCED)}
    known = {name: value for name, value in (known | validated).items() if value is not None}
    values = [None if result.value is None and name.startswith("val/") else float(known[name]) for name in names]
    return values[0] if len(values) == 1 else values

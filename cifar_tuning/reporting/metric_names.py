"""What the words of a metric's name tell: whether more is better, and on which images it is measured."""

import re
from collections.abc import Sequence

from cifar_tuning.ranking import SMALLER_IS_BETTER


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Whole words of a metric's name: `val/terrain_acc` is no error, `sentiment_acc` no time.
ACCURACY = _set("acc accuracy")
GAINS = ACCURACY | _set(
    "score f1 fscore auc auroc auprc roc ap map precision recall sensitivity specificity iou miou jaccard dice bleu "
    "rouge meteor chrf psnr ssim r2 kappa mcc correct hits ndcg mrr reward return success likelihood lik elbo tpr tnr "
    "throughput fps speed speedup utilization top1 top5"
)
MISTAKES = _set(
    "loss losses err error errors mistakes misses failures violations perplexity ppl perp nll ce bce xent xentropy "
    "logloss crossentropy mse rmse msle rmsle mae mape smape crps ece mce brier kl kld jsd divergence regret fid kid "
    "lpips wer cer ter eer fpr fnr bpd bpc bits hausdorff chamfer wasserstein distance epe penalty"
)
COSTS = _set(
    "second seconds sec secs ms time times runtime duration latency memory mem mb gb bytes flops gflops mflops macs "
    "gmacs mmacs params parameters size cost costs energy joules kwh watts power nfe"
)
TRAINING, TEST = frozenset(("train", "training")), frozenset(("test", "testing"))
VALIDATION = frozenset(("val", "valid", "validation", "eval", "dev"))
# As in `val/terrain_acc`, `top-1.error`, `valLoss`, `MSELoss`, `val_f1`.
WORD = re.compile(r"(?:[A-Z]+(?![a-z])|[A-Z]?[a-z]+)[0-9]*")
RATE = re.compile(r"[_ /-]per[_ ]")
PER_TIME = frozenset(("second", "sec", "s", "minute", "min", "hour", "h"))


# Our own metrics, as a picture names them.
IN_WORDS = {
    "train/loss": "training loss",
    "train/acc": "training accuracy",
    "val/loss": "validation loss",
    "val/acc": "validation accuracy",
    "val/acc_best": "validation accuracy",
    "test/acc": "test accuracy",
    "epoch_seconds": "seconds per epoch",
    "model/macs": "multiply-adds",
    "model/parameters": "parameters",
}


def in_words(metric: str) -> str:
    """Returns what a picture calls a metric: `validation accuracy` of `val/acc_best`; somebody else's by its name."""
    return IN_WORDS.get(metric, metric)


def larger_is_better(metric: str) -> bool | None:
    """Tells from the words of a metric's name whether more of it is better; an accuracy is one, whatever it is of.

    What is counted per second is a rate: more of it is better unless it is better to have less. `neg` turns a loss into
    a gain and a likelihood into a loss.

    Returns:
        None where its words say neither.
    """
    if metric in SMALLER_IS_BETTER:
        return False
    counted, *per = RATE.split(metric, maxsplit=1)
    words = _words(counted)
    if words & ACCURACY:
        return True
    if words & (MISTAKES | COSTS) or {"cross", "entropy"} <= words:
        less = True
    elif words & GAINS or (per and _words(per[0]) & PER_TIME):
        less = False
    else:
        return None
    return less if "neg" in words or {"negative", "log"} <= words else not less


def of_training(metric: str) -> bool:
    """Whether a metric's name says that it is of the images that were trained on, which nothing should be chosen by."""
    words = _words(metric)
    return bool(words & TRAINING) and not words & (VALIDATION | TEST)


def of_test(metric: str) -> bool:
    """Whether a metric's name says that it is of the test images, which are to judge what was chosen by others."""
    words = _words(metric)
    return bool(words & TEST) and not words & VALIDATION


def of_validation(metric: str) -> bool:
    """Whether a metric's name says that it tells how good a model is on validation images, and not what that costs."""
    words = _words(metric)
    return bool(words & VALIDATION) and not words & COSTS


def unit_of(metric: str, values: Sequence[float]) -> str:
    """Returns `points` for accuracies between 0 and 1, whose differences read better in percentage points."""
    return "points" if _words(metric) & ACCURACY and all(0 <= value <= 1 for value in values) else ""


def _words(metric: str) -> set[str]:
    found = [word.lower() for word in WORD.findall(metric)]
    return {*found, *(word.rstrip("0123456789") for word in found)}

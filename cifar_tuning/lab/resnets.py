"""The report's third lab: what it found with ResNet-20, what it did not get to, and the 90 % it asked for."""

from dataclasses import replace

from cifar_tuning.lab.results import Results, gap
from cifar_tuning.lab.rules import FALSE, HOLDS, INCOMPLETE, MISSING, all_level
from cifar_tuning.lab.verdicts import MEAN_ACCURACY, Contest, Verdict, judge, mean_over, of_all_seeds, of_run
from cifar_tuning.lab.winners import RECIPE
from cifar_tuning.reporting.statistics import summarize
from cifar_tuning.reporting.wording import mean_and_std

GOAL, NOT_NEEDED = 0.90, 200
UNTRIED = {"adam": "Adam", "momentum_0.5": "momentum 0.5", "momentum_0.95": "momentum 0.95", "l1": "L1"}


def third_lab(results: Results) -> list[Verdict]:
    """Judges its conclusions, in the report's order."""
    base = "decay_0.1_50"
    decay = [_variants("lab3_resnet20", base, "no_decay", "0.1 every 50 epochs", "no decay")]
    faster = [replace(decay[0], figure=mean_over(slice(1, None)), quantity=MEAN_ACCURACY)]
    faster_says = "ResNet-20: decay makes it converge much faster (mean validation accuracy over the epochs)"
    similar = [
        _variants("lab3_resnet20", other, base, other.replace("decay_", "").replace("_", " every "), "0.1 every 50")
        for other in ("decay_0.2_40", "decay_0.1_40", "decay_0.1_66")
    ]
    smaller = [_variants("lab3_resnet20", "no_decay_lr_0.01", "no_decay", "learning rate 0.01", "0.1")]
    no_l2 = replace(
        _variants("lab3_resnet20", "l2_0", base, "no L2", "L2 of 1e-4"),
        figure=of_run(gap),
        quantity="gap between training and validation accuracy",
    )
    swish = [_variants("lab3_resnet20", "swish", base, "Swish", "ReLU")]
    untried = [
        judge(
            results,
            f"untried: {name}",
            f"Untried in the report: {name} instead of the default may be better",
            [_variants("lab3_untried", variant, base, name, "SGD with momentum 0.9 and L2")],
        )
        for variant, name in UNTRIED.items()
    ]
    return [
        judge(results, "ResNet decay", "ResNet-20: decay of the learning rate is the key", decay),
        judge(results, "ResNet convergence", faster_says, faster),
        judge(results, "ResNet schedules", "ResNet-20: the four schedules perform alike", similar, all_level),
        judge(results, "ResNet rate", "ResNet-20: without decay a smaller learning rate is better", smaller),
        judge(results, "ResNet L2", "ResNet-20: without L2 training and validation differ more", [no_l2]),
        judge(results, "ResNet Swish", "ResNet-20: Swish and ReLU are alike", swish, all_level),
        *untried,
        _past_ninety(results),
    ]


def _variants(experiment: str, a: str, b: str, a_name: str, b_name: str) -> Contest:
    return Contest(experiment, f"variant=lab3/{a}", f"variant=lab3/{b}", a_name, b_name)


def _past_ninety(results: Results) -> Verdict:
    says = f"ResNet-20 gets past 90 % validation accuracy, and needs no {NOT_NEEDED} epochs for it"
    evidence, outcomes = [], []
    for configuration in results.configurations(RECIPE):
        if not (values := results.values(RECIPE, configuration).values()):
            continue
        found = summarize(values)
        epochs = max(run.epochs for run in results.of(RECIPE, configuration))
        if epochs >= NOT_NEEDED:
            continue
        worst = f"the worst run {min(values):.4f} (n = {found.n})"
        evidence.append(f"The fast recipe: {mean_and_std(found)} in {epochs} epochs, {worst}")
        outcomes.append(of_all_seeds(results, RECIPE, found.n, HOLDS if min(values) > GOAL else FALSE))
    # One length that gets there is enough, and one that is not whole yet may.
    outcome = next((one for one in (HOLDS, INCOMPLETE, *outcomes) if one in outcomes), MISSING)
    decisive = outcomes.index(outcome) if outcome in outcomes else 0
    setting = "one cycle, not the report's schedules" if evidence else ""
    return Verdict("past 90 %", says, outcome, evidence, decisive, [RECIPE], setting=setting)

"""Does a statement of the lab report hold? Decided by rule from the runs that are there, never by hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from cifar_tuning.lab.results import Metric, Results, val_acc
from cifar_tuning.lab.rules import (
    INCOMPLETE,
    MISSING,
    SINGLE,
    Outcome,
    Rule,
    Ruling,
    Side,
    all_ahead,
    is_tested,
    rule_on,
)
from cifar_tuning.reporting.statistics import CONFIDENCE, Comparison, compare, holm
from cifar_tuning.reporting.wording import in_words

# A figure of each run of an experiment's configuration, by seed.
Figure = Callable[[Results, str, str], Mapping[int, float]]


MEAN_ACCURACY = "mean validation accuracy"


def of_run(metric: Metric) -> Figure:
    """Returns the figure that is read off a run."""
    return lambda results, experiment, configuration: results.values(experiment, configuration, metric)


# What is compared unless a contest says otherwise: best validation accuracy.
BEST = of_run(val_acc)


def mean_over(epochs: slice) -> Figure:
    """Returns the figure that is a run's mean validation accuracy over epochs; 0 is the network before training."""
    return lambda results, experiment, configuration: results.curve_means(experiment, configuration, epochs)


@dataclass(frozen=True)
class Verdict:
    """What became of a statement.

    Attributes:
        name: short and unique.
        says: the statement, in the report's sense.
        outcome: one of this module's words.
        evidence: sentences with figures.
        decisive: which of them decided; the page's summary shows it alone.
        experiments: what must be trained for it.
        ordered: whether it is about the order of a published table.
        coverage: how many of its comparisons there are, in words; empty if all.
        setting: what it was measured in, where the statement is broader; the summary shows it, too.
        contests: how those ended that it rests on, and the rule that made the outcome of them; none where it is read
            off a figure.
    """

    name: str
    says: str
    outcome: str
    evidence: Sequence[str]
    decisive: int = 0
    experiments: Sequence[str] = ()
    ordered: bool = False
    coverage: str = ""
    setting: str = ""
    contests: Sequence[Outcome] = ()
    rule: Rule = all_ahead

    @property
    def sentences(self) -> list[str]:
        """All that it rests on, in words."""
        return [*self.evidence, *([capital(self.setting)] if self.setting else [])]


@dataclass(frozen=True)
class Contest:
    """Two configurations of an experiment, the first of which is said to be ahead.

    Attributes:
        experiment: their overlay.
        a, b: configurations.
        a_name, b_name: what the page calls them.
        figure: what is compared.
        quantity: what the figure is, where it is no accuracy: `gap between training and validation accuracy`.
        unit: of the difference; `points` are hundredths.
        against: the second one's figure, where it is another.
    """

    experiment: str
    a: str
    b: str
    a_name: str
    b_name: str
    figure: Figure = BEST
    quantity: str = ""
    unit: str = "points"
    against: Figure | None = None


NOT_HELD = Outcome("missing", "", 1.0)


def hold(results: Results, contests: Sequence[Contest]) -> list[Outcome]:
    """Holds the contests, each at the longest training that both sides have; one outcome for each, in their order."""
    held = [_held(results, contest) for contest in contests]
    corrected = holm([None if found is None else found[0].p for found in held])
    return [
        NOT_HELD if found is None else _outcome(contest, *found, p)
        for contest, found, p in zip(contests, held, corrected, strict=True)
    ]


def _held(results: Results, contest: Contest) -> tuple[Comparison, tuple[int, int]] | None:
    """Returns how the sides compare, and the seeds as in `Outcome`; None where one has no figures."""
    name, wanted = contest.experiment, results.experiment(contest.experiment).seeds
    for length in results.lengths(name):
        a = contest.figure(results, name, contest.a + length)
        b = (contest.against or contest.figure)(results, name, contest.b + length)
        if a and b:
            # Of a run that diverged there may be no figure, and none is to come.
            ended = [
                {*figures, *(run.seed for run in results.of(name, one + length) if run.state == "diverged")}
                for one, figures in ((contest.a, a), (contest.b, b))
            ]
            return compare(a, b), (sum(seed in ended[0] & ended[1] for seed in wanted), len(wanted))
    return None


def _outcome(contest: Contest, found: Comparison, seeds: tuple[int, int], p: float | None) -> Outcome:
    sentence = in_words(contest.a_name, contest.b_name, found, p, contest.unit, quantity=contest.quantity)
    side: Side = "level"
    if found.half_width is None or (p is None and found.difference != 0):
        side = "untested"
    elif p is not None and p < 1 - CONFIDENCE:
        side = "ahead" if found.difference > 0 else "behind"
    return Outcome(side, sentence, 1.0 if p is None else p, seeds, found.p)


def judge(
    results: Results,
    name: str,
    says: str,
    contests: Sequence[Contest],
    rule: Rule = all_ahead,
    ordered: bool = False,
) -> Verdict:
    """Judges a statement by contests."""
    experiments = list(dict.fromkeys(contest.experiment for contest in contests))
    return ruled(Verdict(name, says, MISSING, [], 0, experiments, ordered), hold(results, contests), rule)


def ruled(verdict: Verdict, outcomes: Sequence[Outcome], rule: Rule = all_ahead) -> Verdict:
    """Returns a verdict with what a rule makes of contests' outcomes; as it is where none was held."""
    there = [one for one in outcomes if one.side != "missing"]
    if not there:
        return verdict
    if any(map(is_tested, outcomes)):
        ruling = rule_on(outcomes, rule)
    else:
        single = all(one.whole and one.seeds[1] <= 1 for one in outcomes)
        ruling = Ruling(SINGLE if single else INCOMPLETE, there[0])
    coverage = _coverage(outcomes)
    return replace(
        verdict,
        outcome=ruling.outcome,
        evidence=[capital(one.sentence) for one in there] + ([capital(coverage)] if coverage else []),
        decisive=there.index(ruling.by),
        coverage=coverage,
        contests=outcomes,
        rule=rule,
    )


def of_all_seeds(results: Results, experiment: str, runs: int, outcome: str) -> str:
    """Returns an outcome that is read off the runs without a test: as it is if all seeds of the grid have run."""
    return outcome if runs >= len(results.experiment(experiment).seeds) else INCOMPLETE


def _coverage(outcomes: Sequence[Outcome]) -> str:
    """Returns how many contests were tested, or, if none was, could be held, and on how many seeds those rest.

    Nothing if it is all of them.
    """
    tested, there = [one for one in outcomes if is_tested(one)], [one for one in outcomes if one.side != "missing"]
    counted, what = (tested, "tested") if tested else (there, "there")
    parts = [f"only {len(counted)} of {len(outcomes)} comparisons are {what}"] if len(counted) < len(outcomes) else []
    seeds, wanted = min(one.seeds for one in counted)
    return ", ".join(parts + ([f"only {seeds} of {wanted} seeds are there"] if seeds < wanted else []))


def capital(text: str) -> str:
    """Returns a text with its first letter large."""
    return text[:1].upper() + text[1:]

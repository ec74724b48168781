"""Does a statement of the lab report hold? Decided by rule from the runs that are there, never by hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cifar_tuning.lab.results import Results
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
from cifar_tuning.reporting.statistics import CONFIDENCE, Comparison, compare, holm, in_words

# A figure of each run of an experiment's configuration, by seed.
Figure = Callable[[Results, str, str], Mapping[int, float]]


def best(results: Results, experiment: str, configuration: str) -> Mapping[int, float]:
    """The figure that is compared unless a contest says otherwise: best validation accuracy."""
    return results.values(experiment, configuration)


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
    """

    name: str
    says: str
    outcome: str
    evidence: Sequence[str]
    decisive: int = 0
    experiments: Sequence[str] = ()
    ordered: bool = False
    coverage: str = ""


@dataclass(frozen=True)
class Contest:
    """Two configurations of an experiment, the first of which is said to be ahead.

    Attributes:
        experiment: their overlay.
        a, b: configurations.
        a_name, b_name: what the page calls them.
        figure: what is compared.
        quantity: what the figure is, where it is no accuracy: `gap between training and validation accuracy`.
    """

    experiment: str
    a: str
    b: str
    a_name: str
    b_name: str
    figure: Figure = best
    quantity: str = ""


NOT_HELD = Outcome("missing", "", 1.0)


def hold(results: Results, contests: Sequence[Contest]) -> list[Outcome]:
    """Holds the contests, each at the longest training that both sides have; one outcome for each, in their order."""
    found = [_sides(results, contest) for contest in contests]
    comparisons = [compare_seeds(sides.a, sides.b) if sides is not None else None for sides in found]
    corrected = holm([comparison.p if comparison is not None else None for comparison in comparisons])
    return [
        _outcome(contest, comparison, p, sides.seeds) if sides is not None and comparison is not None else NOT_HELD
        for contest, sides, comparison, p in zip(contests, found, comparisons, corrected, strict=True)
    ]


@dataclass(frozen=True)
class _Sides:
    """A contest's figures by seed, and the seeds as in `Outcome`."""

    a: Mapping[int, float]
    b: Mapping[int, float]
    seeds: tuple[int, int]


def _sides(results: Results, contest: Contest) -> _Sides | None:
    name, wanted = contest.experiment, results.experiment(contest.experiment).seeds
    for length in results.lengths(name):
        a, b = (contest.figure(results, name, one + length) for one in (contest.a, contest.b))
        if a and b:
            # Of a run that diverged there may be no figure, and none is to come.
            ended = [
                {*figures, *(run.seed for run in results.of(name, one + length) if run.state == "diverged")}
                for one, figures in ((contest.a, a), (contest.b, b))
            ]
            return _Sides(a, b, (sum(seed in ended[0] & ended[1] for seed in wanted), len(wanted)))
    return None


def compare_seeds(a: Mapping[int, float], b: Mapping[int, float]) -> Comparison:
    """Compares figures by seed; see `statistics.compare`."""
    keyed: list[dict[object, float]] = [dict(values.items()) for values in (a, b)]
    return compare(*keyed)


def _outcome(contest: Contest, found: Comparison, p: float | None, seeds: tuple[int, int]) -> Outcome:
    sentence = in_words(
        contest.a_name,
        contest.b_name,
        found,
        p=p,
        unit="points",
        maximize=True,
        quantity=contest.quantity,
    )
    side: Side = "level"
    if found.half_width is None or (p is None and found.difference != 0):
        side = "untested"
    elif p is not None and p < 1 - CONFIDENCE:
        side = "ahead" if found.difference > 0 else "behind"
    return Outcome(side, sentence, 1.0 if p is None else p, seeds)


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
    outcomes = hold(results, contests)
    there = [one for one in outcomes if one.side != "missing"]
    if not there:
        return Verdict(name, says, MISSING, [], 0, experiments, ordered)
    ruling = rule_on(outcomes, rule) if any(map(is_tested, outcomes)) else Ruling(SINGLE, there[0])
    evidence = [capital(one.sentence) for one in there]
    coverage = _coverage(outcomes)
    if coverage:
        evidence.append(capital(coverage))
    return Verdict(name, says, ruling.outcome, evidence, there.index(ruling.by), experiments, ordered, coverage)


def of_all_seeds(results: Results, experiment: str, runs: int, outcome: str) -> str:
    """Returns an outcome that is read off the runs without a test: as it is if all seeds of the grid have run."""
    if runs >= len(results.experiment(experiment).seeds):
        return outcome
    return INCOMPLETE if runs > 1 else SINGLE


def _coverage(outcomes: Sequence[Outcome]) -> str:
    """Returns how many contests were tested, or, if none was, could be held, and on how many seeds those rest.

    Nothing if it is all of them.
    """
    tested, there = sum(map(is_tested, outcomes)), sum(one.side != "missing" for one in outcomes)
    count, what = (tested, "tested") if tested else (there, "there")
    parts = [f"only {count} of {len(outcomes)} comparisons are {what}"] if count < len(outcomes) else []
    return ", ".join(parts + lacking_seeds([one.seeds for one in outcomes if is_tested(one)]))


def lacking_seeds(seeds: Sequence[tuple[int, int]]) -> list[str]:
    """Returns, in words, the fewest seeds that one of several figures rests on; nothing if all have all of them."""
    there, wanted = min(seeds, default=(0, 0))
    return [f"only {there} of {wanted} seeds are there"] if there < wanted else []


def capital(text: str) -> str:
    """Returns a text with its first letter large."""
    return text[:1].upper() + text[1:]

"""Does a statement of the lab report hold? Decided by rule from the runs that are there, never by hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cifar_tuning.lab.results import Results
from cifar_tuning.reporting.statistics import CONFIDENCE, Comparison, compare, holm, in_words

HOLDS, PARTLY, FALSE = "holds", "holds in part", "does not hold"
NOISE, SINGLE, MISSING = "within noise", "not tested", "not yet measured"
# Runs or comparisons that the statement is about are still to come, and they may turn the verdict.
INCOMPLETE = "incomplete"

Side = Literal["ahead", "behind", "level", "untested", "missing"]
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
        maximize: whether more is ahead.
        unit: of the figure, see `statistics.in_words`.
        quantity: what the figure is, where it is no accuracy: `gap between training and validation accuracy`.
    """

    experiment: str
    a: str
    b: str
    a_name: str
    b_name: str
    figure: Figure = best
    maximize: bool = True
    unit: str = "points"
    quantity: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a contest ended.

    Attributes:
        side: which side the first one is on; `untested` where there are single runs, `missing` where there are none.
        sentence: the same with figures; empty if missing.
        p: corrected for all contests that are read together; 1 without a test.
    """

    side: Side
    sentence: str
    p: float


NOT_HELD = Outcome("missing", "", 1.0)


def hold(results: Results, contests: Sequence[Contest]) -> list[Outcome]:
    """Holds the contests, each at the longest training that both sides have; one outcome for each, in their order."""
    found = [_sides(results, contest) for contest in contests]
    comparisons = [compare_seeds(*sides) if sides is not None else None for sides in found]
    corrected = holm([comparison.p if comparison is not None else None for comparison in comparisons])
    return [
        _outcome(contest, comparison, p) if comparison is not None else NOT_HELD
        for contest, comparison, p in zip(contests, comparisons, corrected, strict=True)
    ]


def _sides(results: Results, contest: Contest) -> tuple[Mapping[int, float], Mapping[int, float]] | None:
    for length in results.lengths(contest.experiment):
        a, b = (contest.figure(results, contest.experiment, one + length) for one in (contest.a, contest.b))
        if a and b:
            return a, b
    return None


def compare_seeds(a: Mapping[int, float], b: Mapping[int, float]) -> Comparison:
    """Compares figures by seed; see `statistics.compare`."""
    keyed: list[dict[object, float]] = [dict(values.items()) for values in (a, b)]
    return compare(*keyed)


def _outcome(contest: Contest, found: Comparison, p: float | None) -> Outcome:
    sentence = in_words(
        contest.a_name,
        contest.b_name,
        found,
        p=p,
        unit=contest.unit,
        maximize=contest.maximize,
        quantity=contest.quantity,
    )
    side: Side = "level"
    if found.half_width is None or (p is None and found.difference != 0):
        side = "untested"
    elif p is not None and p < 1 - CONFIDENCE:
        side = "ahead" if (found.difference > 0) is contest.maximize else "behind"
    return Outcome(side, sentence, 1.0 if p is None else p)


@dataclass(frozen=True)
class Ruling:
    """What a rule makes of contests.

    Attributes:
        outcome: one of this module's words.
        by: the contest that decided, which the summary shows.
    """

    outcome: str
    by: Outcome


# Decides by the outcomes of all contests, in their order, at least one of which was tested.
Rule = Callable[[Sequence[Outcome]], Ruling]


def all_ahead(outcomes: Sequence[Outcome]) -> Ruling:
    """The statement: the first is ahead in every contest. A loss refutes it, whatever is still to come."""
    ahead, behind, level = _sorted(outcomes)
    if behind:
        return Ruling(PARTLY if ahead else FALSE, behind[0])
    if ahead and level:
        return Ruling(PARTLY, level[-1])
    if not _complete(outcomes):
        return Ruling(INCOMPLETE, (ahead or level)[-1])
    return Ruling(HOLDS, ahead[-1]) if ahead else Ruling(NOISE, level[0])


def none_behind(outcomes: Sequence[Outcome]) -> Ruling:
    """The statement: the first is never behind. That nothing can be told does not prove it."""
    ahead, behind, level = _sorted(outcomes)
    if behind:
        return Ruling(FALSE, behind[0])
    clearest = (ahead or level)[0]
    if not _complete(outcomes):
        return Ruling(INCOMPLETE, clearest)
    return Ruling(HOLDS if ahead else NOISE, clearest)


def some_behind(outcomes: Sequence[Outcome]) -> Ruling:
    """The statement: the first is not always ahead, there is a contest in which it is behind."""
    ahead, behind, level = _sorted(outcomes)
    if behind:
        return Ruling(HOLDS, behind[0])
    if not _complete(outcomes):
        return Ruling(INCOMPLETE, (level or ahead)[0])
    return Ruling(NOISE, level[0]) if level else Ruling(FALSE, ahead[-1])


def all_level(outcomes: Sequence[Outcome]) -> Ruling:
    """The statement: nobody is ahead. A test can refute this, and never prove it."""
    ahead, behind, level = _sorted(outcomes)
    if ahead or behind:
        return Ruling(FALSE, min(ahead + behind, key=_p))
    return Ruling(NOISE if _complete(outcomes) else INCOMPLETE, level[0])


def first_behind(outcomes: Sequence[Outcome]) -> Ruling:
    """The statement: the first is behind in the first contest; the others are there to be read."""
    outcome = {"behind": HOLDS, "ahead": FALSE, "level": NOISE}.get(outcomes[0].side, INCOMPLETE)
    return Ruling(outcome, next(one for one in outcomes if one.side != "missing"))


def _sorted(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome], list[Outcome]]:
    """Returns the outcomes with the first ahead, behind and level, each the surest first."""
    sides: tuple[Side, ...] = ("ahead", "behind", "level")
    ahead, behind, level = (sorted((one for one in outcomes if one.side == side), key=_p) for side in sides)
    return ahead, behind, level


def _p(outcome: Outcome) -> float:
    return outcome.p


def _complete(outcomes: Sequence[Outcome]) -> bool:
    return all(map(_tested, outcomes))


def _tested(outcome: Outcome) -> bool:
    return outcome.side not in ("untested", "missing")


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
    ruling = rule(outcomes) if any(map(_tested, outcomes)) else Ruling(SINGLE, there[0])
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
    """Returns how many contests were tested, or, if none was, could be held; nothing if it is all of them."""
    tested, there = sum(map(_tested, outcomes)), sum(one.side != "missing" for one in outcomes)
    count, what = (tested, "tested") if tested else (there, "there")
    return f"only {count} of {len(outcomes)} comparisons are {what}" if count < len(outcomes) else ""


def capital(text: str) -> str:
    """Returns a text with its first letter large."""
    return text[:1].upper() + text[1:]

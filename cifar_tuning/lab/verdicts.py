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
    """

    experiment: str
    a: str
    b: str
    a_name: str
    b_name: str
    figure: Figure = best
    maximize: bool = True
    unit: str = "points"


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
    sentence = in_words(contest.a_name, contest.b_name, found, p=p, unit=contest.unit, maximize=contest.maximize)
    side: Side = "level"
    if found.half_width is None or (p is None and found.difference != 0):
        side = "untested"
    elif p is not None and p < 1 - CONFIDENCE:
        side = "ahead" if (found.difference > 0) is contest.maximize else "behind"
    return Outcome(side, sentence, 1.0 if p is None else p)


# Decides by the sides of all contests, in their order, at least one of which was tested.
Rule = Callable[[Sequence[Side]], str]


def all_ahead(sides: Sequence[Side]) -> str:
    """The statement: the first is ahead in every contest. A loss refutes it, whatever is still to come."""
    if all(side == "ahead" for side in sides):
        return HOLDS
    if "behind" in sides:
        return PARTLY if "ahead" in sides else FALSE
    if "level" in sides and "ahead" in sides:
        return PARTLY
    return NOISE if _complete(sides) else INCOMPLETE


def none_behind(sides: Sequence[Side]) -> str:
    """The statement: the first is never behind. That nothing can be told does not prove it."""
    if "behind" in sides:
        return FALSE
    if not _complete(sides):
        return INCOMPLETE
    return HOLDS if "ahead" in sides else NOISE


def some_behind(sides: Sequence[Side]) -> str:
    """The statement: the first is not always ahead, there is a contest in which it is behind."""
    if "behind" in sides:
        return HOLDS
    if not _complete(sides):
        return INCOMPLETE
    return FALSE if all(side == "ahead" for side in sides) else NOISE


def all_level(sides: Sequence[Side]) -> str:
    """The statement: nobody is ahead. A test can refute this, and never prove it."""
    if "ahead" in sides or "behind" in sides:
        return FALSE
    return NOISE if _complete(sides) else INCOMPLETE


def first_behind(sides: Sequence[Side]) -> str:
    """The statement: the first is behind in the first contest; the others are there to be read."""
    return {"behind": HOLDS, "ahead": FALSE, "level": NOISE}.get(sides[0], INCOMPLETE)


def _complete(sides: Sequence[Side]) -> bool:
    return all(_tested(side) for side in sides)


def _tested(side: Side) -> bool:
    return side not in ("untested", "missing")


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
    sides = [outcome.side for outcome in outcomes]
    there = [one for one in outcomes if one.side != "missing"]
    if not there:
        return Verdict(name, says, MISSING, [], 0, experiments, ordered)
    outcome = rule(sides) if any(map(_tested, sides)) else SINGLE
    evidence = [capital(one.sentence) for one in there]
    coverage = _coverage(sides)
    if coverage:
        evidence.append(coverage)
    return Verdict(name, says, outcome, evidence, _decisive(there, outcome), experiments, ordered, coverage)


def of_all_seeds(results: Results, experiment: str, runs: int, outcome: str) -> str:
    """Returns an outcome that is read off the runs without a test: as it is if all seeds of the grid have run."""
    if runs >= len(results.experiment(experiment).seeds):
        return outcome
    return INCOMPLETE if runs > 1 else SINGLE


def _coverage(sides: Sequence[Side]) -> str:
    """Returns how many contests were tested, or, if none was, could be held; nothing if it is all of them."""
    tested, there = sum(map(_tested, sides)), sum(side != "missing" for side in sides)
    count, what = (tested, "tested") if tested else (there, "there")
    return f"only {count} of {len(sides)} comparisons are {what}" if count < len(sides) else ""


def _decisive(outcomes: Sequence[Outcome], outcome: str) -> int:
    """Returns which contest tells most: the loser's where something is lost, else the least certain one."""
    behind = [place for place, one in enumerate(outcomes) if one.side == "behind"]
    if behind and outcome != NOISE:
        return min(behind, key=lambda place: outcomes[place].p)
    return max(range(len(outcomes)), key=lambda place: outcomes[place].p)


def capital(text: str) -> str:
    """Returns a text with its first letter large."""
    return text[:1].upper() + text[1:]

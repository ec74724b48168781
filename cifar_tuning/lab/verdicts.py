"""Does a statement of the lab report hold? Decided by rule from the runs that are there, never by hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cifar_tuning.lab.results import Results
from cifar_tuning.reporting.statistics import CONFIDENCE, Comparison, compare, holm, in_words

HOLDS, PARTLY, FALSE = "holds", "holds in part", "does not hold"
NOISE, SINGLE, MISSING = "within noise", "not tested", "not yet measured"

Side = Literal["ahead", "behind", "level", "untested"]
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
    """

    name: str
    says: str
    outcome: str
    evidence: Sequence[str]
    decisive: int = 0
    experiments: Sequence[str] = ()
    ordered: bool = False


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
    """How a contest ended: who is ahead, with the p value corrected for all contests that are read together."""

    side: Side
    sentence: str
    p: float


def hold(results: Results, contests: Sequence[Contest]) -> list[Outcome]:
    """Holds those contests whose both sides have runs, of the longest training that both have."""
    found = [(contest, _sides(results, contest)) for contest in contests]
    ready = [(contest, compare_seeds(*sides)) for contest, sides in found if sides is not None]
    corrected = holm([comparison.p for _, comparison in ready])
    return [_outcome(contest, comparison, p) for (contest, comparison), p in zip(ready, corrected, strict=True)]


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


Rule = Callable[[Sequence[Side]], str]


def all_ahead(sides: Sequence[Side]) -> str:
    """The statement: the first is ahead in every contest."""
    if all(side == "ahead" for side in sides):
        return HOLDS
    if "behind" in sides:
        return PARTLY if "ahead" in sides else FALSE
    return PARTLY if "ahead" in sides else NOISE


def none_behind(sides: Sequence[Side]) -> str:
    """The statement: the first is never behind. That nothing can be told does not prove it."""
    if "behind" in sides:
        return FALSE
    return HOLDS if "ahead" in sides else NOISE


def some_behind(sides: Sequence[Side]) -> str:
    """The statement: the first is not always ahead, there is a contest in which it is behind."""
    if "behind" in sides:
        return HOLDS
    return FALSE if all(side == "ahead" for side in sides) else NOISE


def all_level(sides: Sequence[Side]) -> str:
    """The statement: nobody is ahead. A test can refute this, and never prove it."""
    return NOISE if all(side == "level" for side in sides) else FALSE


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
    if not outcomes:
        return Verdict(name, says, MISSING, [], 0, experiments, ordered)
    sides = [outcome.side for outcome in outcomes]
    tested = [side for side in sides if side != "untested"]
    outcome = rule(tested) if tested else SINGLE
    evidence = [capital(one.sentence) for one in outcomes]
    if len(outcomes) < len(contests):
        evidence.append(f"only {len(outcomes)} of {len(contests)} comparisons are there")
    return Verdict(name, says, outcome, evidence, _decisive(outcomes, outcome), experiments, ordered)


def _decisive(outcomes: Sequence[Outcome], outcome: str) -> int:
    """Returns which contest tells most: the loser's where something is lost, else the least certain one."""
    behind = [place for place, one in enumerate(outcomes) if one.side == "behind"]
    if behind and outcome != NOISE:
        return min(behind, key=lambda place: outcomes[place].p)
    return max(range(len(outcomes)), key=lambda place: outcomes[place].p)


def capital(text: str) -> str:
    """Returns a text with its first letter large."""
    return text[:1].upper() + text[1:]

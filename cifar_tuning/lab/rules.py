"""What comparisons make of a statement: rules that know the comparisons' outcomes and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

HOLDS, PARTLY, FALSE = "holds", "holds in part", "does not hold"
NOISE, MISSING = "within noise", "not yet measured"
# All seeds that the grid asks for are there, and that is one: no test, and none to come.
SINGLE = "one seed only"
# Runs or comparisons that the statement is about are still to come, and they may turn the verdict.
INCOMPLETE = "incomplete"

Side = Literal["ahead", "behind", "level", "untested", "missing"]


@dataclass(frozen=True)
class Outcome:
    """How a contest ended.

    Attributes:
        side: which side the first one is on; `untested` where there are single runs, `missing` where there are none.
        sentence: the same with figures; empty if missing.
        p: corrected for all contests that are read together; 1 without a test.
        seeds: how many of the grid's seeds there are on both sides, and how many there should be.
        raw_p: as the test found it; None without one.
    """

    side: Side
    sentence: str
    p: float
    seeds: tuple[int, int] = (0, 0)
    raw_p: float | None = None

    @property
    def whole(self) -> bool:
        """Whether no seed is still to come that may turn it."""
        return self.seeds[0] >= self.seeds[1]


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


def rule_on(outcomes: Sequence[Outcome], rule: Rule) -> Ruling:
    """Returns what a rule makes of contests: incomplete unless it stands without those that lack seeds."""
    ruling = rule(outcomes)
    settled = [one if one.whole else replace(one, side="untested") for one in outcomes]
    if any(map(is_tested, settled)) and rule(settled).outcome == ruling.outcome:
        return ruling
    return Ruling(INCOMPLETE, ruling.by)


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


def is_extreme(outcomes: Sequence[Outcome]) -> Ruling:
    """The statement: the first is the best of all, or the worst. One that outdoes it refutes it, and one that can't be
    told from it leaves it open, however many it is ahead of.
    """
    ahead, behind, level = _sorted(outcomes)
    if behind:
        return Ruling(FALSE, behind[0])
    nearest = (level or ahead)[-1]
    if not _complete(outcomes):
        return Ruling(INCOMPLETE, nearest)
    return Ruling(NOISE if level else HOLDS, nearest)


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


def _sorted(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome], list[Outcome]]:
    """Returns the outcomes with the first ahead, behind and level, each the surest first."""
    sides: tuple[Side, ...] = ("ahead", "behind", "level")
    ahead, behind, level = (sorted((one for one in outcomes if one.side == side), key=_p) for side in sides)
    return ahead, behind, level


def _p(outcome: Outcome) -> float:
    return outcome.p


def _complete(outcomes: Sequence[Outcome]) -> bool:
    return all(map(is_tested, outcomes))


def is_tested(outcome: Outcome) -> bool:
    """Whether a contest was held by runs enough for a test."""
    return outcome.side not in ("untested", "missing")

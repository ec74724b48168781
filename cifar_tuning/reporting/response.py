"""What each of several hyperparameters does that were drawn and not laid out in a grid: all in one least-squares model.

Each number has a straight line and a parabola (of its logarithm, if its values lie more evenly so), each choice a level
of its own, and the order of the trials a line, because a sampler learns. A hyperparameter is tested by what the model
loses without it: by permutations of the residuals (Freedman and Lane, Journal of Business & Economic Statistics 1,
1983), since neither their distribution nor the sampler's design is known.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np

from cifar_tuning.reporting.factors import Factor, numbers_in
from cifar_tuning.reporting.interactions import NOTHING_LEFT, basis_of
from cifar_tuning.reporting.shapes import Fit, Term, shape_in_words
from cifar_tuning.reporting.statistics import CONFIDENCE
from cifar_tuning.reporting.table import Configuration, Table, value_in_words
from cifar_tuning.reporting.varying import MISSING
from cifar_tuning.reporting.wording import p_in_words

# Permutations of a test; the smallest possible p value is one over them.
PERMUTATIONS = 4999
# Permutations at least as extreme after which a test may stop early (Besag and Clifford, Biometrika 78, 1991).
PLENTY = 200
# Numbers that are permuted at once, to bound the memory.
AT_ONCE = 500_000
# Least residual degrees of freedom.
FEWEST_LEFT = 6
# Outliers: so many interquartile ranges worse than the worse quartile. They would dominate the fit.
FAR_BEHIND = 3.0
# Least ratio of the largest to the smallest number for a logarithmic scale.
DECADE = 10.0


@dataclass(frozen=True)
class Influence:
    """What a hyperparameter does beside the others.

    Attributes:
        option: the hyperparameter.
        n: configurations that have it.
        p: corrected for the number of comparisons in the report.
        shape: where the fitted optimum is, or which value is ahead, in words.
        number: whether its values are numbers.
        text: the result as a sentence.
    """

    option: str
    n: int
    p: float | None
    shape: str
    number: bool
    text: str = ""


def find_influences(
    table: Table, factors: Sequence[Factor], tested: Set[int], of_study: bool = False
) -> dict[int, Influence]:
    """Returns the influence of hyperparameters by their places; nothing where there are too few configurations.

    Configurations that fell far behind would rule a fit of the values. So where there are some, a hyperparameter is
    tested twice, on the values without them and on the ranks of all, and the smaller p value is doubled.

    Args:
        table: the configurations.
        factors: all hyperparameters, those that are only held constant included.
        tested: places of those to tell of.
        of_study: whether a sampler chose the configurations; a grid's order is that of its values.
    """
    there = table.configurations
    y = np.array([c.summary.mean for c in there])
    if not tested or np.ptp(y) == 0:
        return {}
    terms = [term for factor in factors if (term := _term(there, factor, table)) is not None]
    base = _base(there, of_study)
    kept = _not_far_behind(y, table.maximize)
    values = _Model(y[kept], base[kept], [term.of(kept) for term in terms])
    ranks = _Model(_scores(y), base, terms) if not kept.all() else None
    found = {}
    for factor in factors:
        if factor.place not in tested:
            continue
        tests = [(p, model) for model in (values, ranks) if model is not None and (p := model.p(factor.place))]
        if tests:
            p, model = min(tests, key=lambda test: test[0])
            term = next(t for t in terms if t.place == factor.place)
            shape = _shape(table, term, model, model is values, int((~kept).sum()))
            n = int(term.present.sum())
            found[factor.place] = Influence(factor.option(table), n, min(1.0, p * len(tests)), shape, term.is_number)
    return found


def influence_in_words(influence: Influence, p: float | None) -> str:
    """Returns an influence as a sentence, given its corrected p value."""
    facts = f"({p_in_words(p)}, n = {influence.n})"
    sure = 1 - CONFIDENCE
    if p is not None and p < sure:
        return f"{influence.option} matters {facts}: {influence.shape}."
    if influence.p is not None and influence.p < sure:
        return f"{influence.option} may matter, or this is chance among so many tests {facts}: {influence.shape}."
    neither = ", neither a trend nor a best value in between" if influence.number else ""
    return f"No influence of {influence.option} can be told{neither} {facts}."


class _Model:
    """Least squares on all terms at once.

    Args:
        y: the metric or its scores, one for each of n configurations.
        base: n × k, columns that are in every model.
        terms: of the hyperparameters.
    """

    def __init__(self, y: np.ndarray, base: np.ndarray, terms: Sequence[Term]) -> None:
        self.y, self._base, self.terms = y, base, list(terms)
        self._basis = basis_of(self._columns())
        self._enough = len(y) - self._basis.shape[1] >= FEWEST_LEFT

    def _columns(self, without: int | None = None) -> list[np.ndarray]:
        return [self._base, *(t.columns for t in self.terms if t.place != without)]

    def p(self, place: int) -> float | None:
        """Returns the p value of a hyperparameter; None where it can't be told apart from others, or there are few."""
        reduced = basis_of(self._columns(without=place))
        if not self._enough or reduced.shape[1] == self._basis.shape[1]:
            return None
        residuals = self.y - reduced @ (reduced.T @ self.y)
        if np.abs(residuals).max() <= NOTHING_LEFT * np.abs(self.y).max():
            return 1.0
        observed = self._gain(residuals[None], reduced)[0]
        generator, n = np.random.default_rng(0), len(residuals)
        as_far, done = 0, 0
        while done < PERMUTATIONS and as_far < PLENTY:
            count = min(PERMUTATIONS - done, max(1, AT_ONCE // n))
            shuffled = generator.permuted(np.tile(residuals, (count, 1)), axis=1)
            as_far += int((self._gain(shuffled, reduced) >= observed * (1 - 1e-9)).sum())
            done += count
        return (as_far + 1) / (done + 1)

    def _gain(self, rows: np.ndarray, reduced: np.ndarray) -> np.ndarray:
        """Returns what the full model explains beside the reduced one, over what stays: F but for its constants."""
        total = (rows**2).sum(axis=1)
        without, rest = total - ((rows @ reduced) ** 2).sum(axis=1), total - ((rows @ self._basis) ** 2).sum(axis=1)
        return np.asarray((without - rest) / np.maximum(rest, NOTHING_LEFT * total))

    def fit(self, place: int) -> Fit:
        """Returns a hyperparameter's coefficients and their covariance."""
        columns = np.column_stack(self._columns())
        inverse = np.linalg.pinv(columns)
        coefficients = inverse @ self.y
        left = len(self.y) - self._basis.shape[1]
        variance = float(((self.y - columns @ coefficients) ** 2).sum()) / left
        first = self._base.shape[1]
        for term in self.terms:
            last = first + term.columns.shape[1]
            if term.place == place:
                break
            first = last
        own = slice(first, last)
        return Fit(coefficients[own], variance * (inverse @ inverse.T)[own, own], left)


def _base(configurations: Sequence[Configuration], of_study: bool) -> np.ndarray:
    from scipy.stats import rankdata

    constant = np.ones(len(configurations))
    begun = [c.began for c in configurations]
    if not of_study or len(set(begun)) < 2:
        return constant[:, None]
    order = rankdata(begun)
    return np.column_stack([constant, (order - order.mean()) / order.std()])


def _term(configurations: Sequence[Configuration], factor: Factor, table: Table) -> Term | None:
    """Returns a hyperparameter's columns; None for words of which nearly every configuration has its own."""
    values = [c.values[factor.place] for c in configurations]
    numbers = numbers_in(set(values))
    conditional = factor.place in factor.conditional
    if numbers is not None and len(numbers) > 1:
        return _number_term(values, factor.place, conditional)
    levels = sorted(set(values), key=lambda value: (-values.count(value), value))
    if 2 * len(levels) > len(values):
        return None
    columns = np.array([[float(value == level) for level in levels[1:]] for value in values])
    present = np.array([not conditional or value != MISSING for value in values])
    words = [value_in_words(table.names[factor.place], level) for level in levels]
    return Term(factor.place, columns, present, words)


def _number_term(values: Sequence[str], place: int, conditional: bool) -> Term:
    from scipy.stats import skew

    present = np.array([value != MISSING for value in values])
    x = np.array([float(value) if value != MISSING else np.nan for value in values])
    found = x[present]
    wide = found.min() > 0 and found.max() >= DECADE * found.min()
    logarithmic = bool(wide and abs(skew(np.log(found))) < abs(skew(found)))
    x = np.log10(x) if logarithmic else x
    z = np.where(present, (x - x[present].mean()) / x[present].std(), 0.0)
    columns = [z]
    if len(set(found)) > 2:
        columns.append(np.where(present, z**2 - (z[present] ** 2).mean(), 0.0))
    # Where another option decides that it is there, that option's own columns say so.
    if not conditional and not present.all():
        columns.append(present.astype(float) - present.mean())
    return Term(place, np.column_stack(columns), present, (), x, logarithmic, len(set(found)) > 2)


def _not_far_behind(y: np.ndarray, maximize: bool) -> np.ndarray:
    better = y if maximize else -y
    lower, upper = np.quantile(better, [0.25, 0.75])
    return np.asarray(better >= lower - FAR_BEHIND * (upper - lower))


def _scores(y: np.ndarray) -> np.ndarray:
    """Returns normal scores of the ranks, which no value can rule."""
    from scipy.stats import norm, rankdata

    return np.asarray(norm.ppf((rankdata(y) - 0.5) / len(y)))


def _shape(table: Table, term: Term, model: _Model, of_values: bool, left_out: int) -> str:
    own = next(t for t in model.terms if t.place == term.place)
    shape = shape_in_words(table, own, model.fit(term.place), of_values)
    if not left_out or not of_values:
        return shape
    which = "one that fell far behind is" if left_out == 1 else f"{left_out} that fell far behind are"
    return f"{shape}; {which} left out of the fit"

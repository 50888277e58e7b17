"""Which differences between the rows of a table are significant, in words and as a table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from ..._tables import Table
from ..statistics import Difference, Numbers, Sample, binomial_error, differences, scipy_stats
from .tables import format_change, format_ends, format_p

COMPARISON_RULE = (
    "Intervals are 95 % intervals of a mean, or of a difference of means, by Student's t distribution. Rows that share "
    "their networks, or whose runs began from the same weights (the same architecture and seed), are compared run by "
    "run, by a paired t test, all others by Welch's t test; p values are corrected for the number of comparisons by "
    "Holm's method, intervals of differences are not."
)
SCIPY_REMARK = (
    "There are no 95 % intervals and no tests of differences, which need SciPy (pip install scipy) and memory for it."
)
_MAX_PAIRS = 6  # a sentence lists up to this number of pairs


def comparison_rule() -> str:
    """How intervals and tests are made, or what they need that is not installed."""
    return COMPARISON_RULE if scipy_stats() else SCIPY_REMARK


def sampling_remark(accuracies: Sequence[float], n_images: int, which: str = "test") -> str:
    """One sentence about the error that all rows share, since their images are a sample themselves.

    Parameters
    ----------
    accuracies : sequence of float
        In 0..1.
    n_images : int
    which : str
        What the images are called.

    Examples
    --------
    >>> sampling_remark([0.75], 10_000)
    'The 10,000 test images are a sample, too, the same for all rows: by it alone, an accuracy has a standard error of \
0.43 points (binomial), which is not contained in intervals and tests.'
    """
    errors = standard_errors(accuracies, n_images)
    return (
        f"The {n_images:,} {which} images are a sample, too, the same for all rows: by it alone, an accuracy has a "
        f"standard error of {errors} points (binomial), which is not contained in intervals and tests."
    )


def standard_errors(accuracies: Sequence[float], n_images: int) -> str:
    """The lowest and the highest binomial standard error of accuracies in 0..1, in points; one if they are the same.

    Examples
    --------
    >>> standard_errors([0.5, 0.75], 10_000)
    '0.43 to 0.50'
    """
    errors = [100 * binomial_error(accuracy, n_images) for accuracy in accuracies]
    return " to ".join(dict.fromkeys(f"{end(errors):.2f}" for end in (min, max)))


def describe_differences(
    groups: Mapping[str, Sample | Numbers],
    quantity: str = "test accuracy",
    scale: float = 100,
    unit: str = " points",
    decimals: int = 2,
    pairs: Iterable[tuple[str, str]] | None = None,
) -> str:
    """One or two sentences that say which differences between rows are significant.

    Parameters
    ----------
    groups : mapping of str to Sample or sequence of float
        One value per run; accuracies in 0..1 by default. See `statistics.differences`.
    quantity : str
        Name of the values.
    scale, unit, decimals : float, str, int
        How differences are written.
    pairs : iterable of (str, str), optional
        The comparisons that were planned; by default all.

    Returns
    -------
    str

    Examples
    --------
    >>> describe_differences({"a": [0.5], "b": [0.6]})
    'Where a row has one run, it cannot be told which differences in test accuracy are significant.'
    >>> describe_differences({"a": [0.500, 0.502], "b": [0.600, 0.603]})
    "The difference in test accuracy, 10.05 points for b minus a, is significant at 5 % (95 % interval 9.15 to 10.95, \
p < 0.001, Welch's t test)."
    """
    found = differences(groups, pairs)
    sentence = _describe(found, quantity, scale, unit, decimals)
    return " ".join([sentence, *without_number(groups)])


def without_number(groups: Mapping[str, Sample | Numbers]) -> list[str]:
    """A sentence about rows that cannot be compared, if any: those without values, or with one that is not finite."""
    values = {
        name: list(group.by_seed.values()) if isinstance(group, Sample) else group for name, group in groups.items()
    }
    names = [name for name, each in values.items() if not len(each) or not np.isfinite(each).all()]
    return [f"Not compared, for want of finite numbers: {'; '.join(names)}."] if names else []


def untested(found: Collection[Difference], quantity: str) -> str:
    """Why no difference could be tested."""
    if not found:
        return f"There are no two rows whose {quantity} could be compared."
    if all(pair.n_runs < 2 for pair in found):
        return f"Where a row has one run, it cannot be told which differences in {quantity} are significant."
    if not scipy_stats():
        return SCIPY_REMARK
    if any(pair.paired for pair in found):
        return f"Since differences in {quantity} are the same for every seed, none can be tested."
    return f"Since runs do not vary in {quantity}, no difference can be tested."


def _describe(found: Sequence[Difference], quantity: str, scale: float, unit: str, decimals: int) -> str:
    tested = [pair for pair in found if pair.p_value is not None]
    if not tested:
        return untested(found, quantity)
    by = _describe_tests(tested, len(tested))
    significant = [pair for pair in tested if pair.is_significant]
    if len(found) == 1:
        (pair,) = tested
        change = f"{scale * pair.value:.{decimals}f}{unit} for {pair.first} minus {pair.second}"
        return f"The difference in {quantity}, {change}, is {verdict(pair, scale, decimals)}."
    left = len(found) - len(tested)
    rest = f" {left} could not be tested, for want of runs or of variation." * bool(left)
    if not significant:
        return f"No difference in {quantity} is significant at 5 % ({by}).{rest}"
    if len(significant) == len(found):
        return f"Every difference in {quantity} is significant at 5 % ({by})."
    if len(significant) > _MAX_PAIRS:
        return f"{len(significant)} of {len(found)} differences in {quantity} are significant at 5 % ({by}).{rest}"
    listed = "; ".join(
        f"{pair.first} and {pair.second} ({scale * abs(pair.value):.{decimals}f}{unit})" for pair in significant
    )
    which = "is the difference" if len(significant) == 1 else "are the differences"
    others = "" if len(significant) == len(tested) else "; no other that was tested is" if left else "; no other is"
    return f"Significant at 5 % ({by}) {which} in {quantity} between {listed}{others}.{rest}"


def verdict(pair: Difference, scale: float = 100, decimals: int = 2, n_comparisons: int = 1) -> str:
    """Whether a difference is significant, as the last clause of a sentence.

    Its p value is corrected for ``n_comparisons``, its interval is not.

    Examples
    --------
    >>> verdict(Difference("a", "b", 0.01, 3, True, (-0.01, 0.03), 0.25))
    'not significant at 5 % (95 % interval -1.00 to 3.00, p = 0.25, paired t test)'
    >>> verdict(Difference("a", "b", 0.01, 1, True))
    'not tested (too few runs)'
    """
    if pair.p_value is None:
        constant = "the same for every seed" if pair.paired else "runs do not vary"
        return f"not tested ({'too few runs' if pair.n_runs < 2 else constant if scipy_stats() else 'without SciPy'})"
    p_value = format_p(pair.p_value)
    return (
        f"{'' if pair.is_significant else 'not '}significant at 5 % (95 % interval "
        f"{format_ends(pair.interval, decimals, scale)}, p {'' if '<' in p_value else '= '}{p_value}, "
        f"{_describe_tests([pair], n_comparisons)})"
    )


def _describe_tests(tested: Sequence[Difference], n_comparisons: int) -> str:
    """By which tests, and corrected for how many comparisons."""
    kinds = {pair.paired for pair in tested}
    tests = "paired and Welch's t tests" if len(kinds) > 1 else "paired t test" if True in kinds else "Welch's t test"
    return tests + (f", corrected for {n_comparisons} comparisons" if n_comparisons > 1 else "")


def differences_table(
    found: Sequence[Difference], scale: float = 100, unit: str = "points", decimals: int = 2
) -> Table | None:
    """A table with each difference, its interval and the test; None unless several were tested.

    Parameters
    ----------
    found : sequence of Difference
    scale, unit, decimals : float, str, int
        How differences are written.

    Returns
    -------
    Table or None
    """
    if sum(pair.p_value is not None for pair in found) < 2:
        return None
    rows = [
        [
            pair.first,
            pair.second,
            format_change(pair.value, decimals, scale),
            format_ends(pair.interval, decimals, scale),
            "–" if pair.p_value is None else f"{'paired' if pair.paired else 'Welch'}, {pair.n_runs} runs",
            format_p(pair.p_value),
        ]
        for pair in found
    ]
    header = ["row", "minus", f"difference ({unit})", "95 % interval", "t test", "p, corrected"]
    return Table(header, rows, n_keys=2)

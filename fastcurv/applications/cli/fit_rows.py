"""Sentences of a page on a fit about defects of the rows: a value that outweighs all others, and
rows that are copies of each other, exactly or nearly. With such rows, scores of left-out rows
mislead.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from ...common.protocols import Floats
from .fit_network import NetworkFit
from .fit_sections import FitPage

# minimum fraction of the variance of the target, of the variance of a column, and of the sum of
# squared errors at which a single row is reported
MIN_TARGET_VARIANCE_FRACTION, MIN_COLUMN_VARIANCE_FRACTION, MIN_SQUARED_ERROR_FRACTION = (
    0.5,
    0.9,
    0.3,
)
# minimum number of left-out rows at which the row with the largest error is compared with the
# others
MIN_ERROR_ROWS = 20
# minimum score of a single column at which it is reported, for targets of which the mean, or the
# most frequent class, explains nothing
MIN_SCORE_ALONE = 0.97
# minimum fraction of exact copies among the rows at which copies are reported
MIN_EXACT_COPY_FRACTION = 0.05
# maximum ratio of the distances to the nearest and to the `N_NEIGHBOURS`-th neighbour at which the
# nearest one counts as a near copy
MAX_NEAR_COPY_RATIO = 0.01
N_NEIGHBOURS = 16  # number of neighbours of a row that are compared
# maximum expected number of rows that equal a given row by chance, if columns are independent, at
# which equal rows count as copies
MAX_EXPECTED_EQUAL_ROWS = 0.05
MAX_INDEPENDENT_CORRELATION = 0.9  # maximum correlation of independent columns
MIN_NEAR_COPY_FRACTION = (
    0.25  # minimum fraction of rows with near copies at which they are reported
)
MAX_QUERY_ROWS = 400  # maximum number of rows whose neighbours are searched for
MAX_DISTANCES = 2_000_000  # maximum number of distances in memory at a time

Call = tuple[str, str]


def defect_sentences(page: FitPage) -> Iterator[tuple[str, list[Call]]]:
    """Yield a sentence about each defect of the rows, with the calls that return its numbers."""
    fit = page.fit
    X = np.asarray(fit.X, float)
    share_of_row = 0.0
    if fit.numbers:
        row, share_of_row = dominant_row(fit.y)
        if share_of_row > MIN_TARGET_VARIANCE_FRACTION:
            shown = f"{share_of_row:.0%}"
            call = page.record_call(
                "target_share", share_of_row, _duplicate_fraction_code("y"), shown
            )
            yield (
                f"{page.place_at_start(row)} alone, with {page.target} = {fit.y[row]:.6g}, "
                f"makes up {shown} of the variance of {page.target}: scores and intervals show "
                "little but this row.",
                [call],
            )
        elif largest_error := _largest_error_sentence(page):
            yield largest_error
    for j, name in enumerate(page.names):
        row, share = dominant_row(X[:, j])
        if (
            share > MIN_COLUMN_VARIANCE_FRACTION
            and len(np.unique(np.delete(X[:, j], row)[:1000])) > 2
        ):
            call = page.record_call(
                f"share_{j}", share, _duplicate_fraction_code(f"X[:, {j}]"), f"{share:.0%}"
            )
            yield (
                f"{page.place_at_start(row)} alone makes up {share:.0%} of the variance of {name}, "
                "so that the others hardly differ in it.",
                [call],
            )
    if share_of_row <= MIN_TARGET_VARIANCE_FRACTION and (
        sentence := _revealing_column_sentence(page)
    ):
        yield sentence, []
    rows = np.column_stack([X, fit.y])
    count = len(rows) - len(np.unique(rows, axis=0))
    if count > MIN_EXACT_COPY_FRACTION * len(rows):
        code = "len(X) - len(np.unique(np.column_stack([X, y]), axis=0))"
        yield (
            f"{count} rows equal another one, {page.target} included. If they are copies, scores "
            "are too high, since a row is predicted from its copy.",
            [page.record_call("copies", count, code, str(count))],
        )
    elif (near := near_duplicate_fraction(X, page.seed)) > MIN_NEAR_COPY_FRACTION:
        yield (
            f"{near:.0%} of the rows have another one that is far nearer than all others. If such "
            "rows belong together, as of one person, place or run, scores are too high for new "
            "ones: `--groups COLUMN` leaves them out together.",
            [],
        )


def _largest_error_sentence(page: FitPage) -> tuple[str, list[Call]] | None:
    """Return a sentence on the left-out row with the largest squared error, and the calls that
    return its numbers. Return None if this error is at most `MIN_SQUARED_ERROR_FRACTION` of the sum
    over all rows, or if there are fewer than `MIN_ERROR_ROWS` left-out rows.
    """
    fit, found = page.fit, page.found
    losses = np.where(found.rows, fit.row_losses(found.left_out), 0.0)
    row, total = int(losses.argmax()), losses.sum()
    if losses[row] <= MIN_SQUARED_ERROR_FRACTION * total or found.rows.sum() < MIN_ERROR_ROWS:
        return None
    share, others = float(losses[row] / total), found.rows.copy()
    others[row] = False
    score = fit.score(found.left_out, others)
    code = "np.nanmax(np.square(y - left_out)) / np.nansum(np.square(y - left_out))"
    rows = f"np.setdiff1d(np.flatnonzero(np.isfinite(left_out)), [{row}])"
    return (
        f"{page.place_at_start(row)} alone makes up {share:.0%} of the squared errors of rows "
        f"left out. Without it their {page.score_name} is {page.format_score(score)}.",
        [
            page.record_call("error_share", share, code, f"{share:.0%}"),
            page.record_call(
                "score_of_others",
                score,
                f"score(left_out[{rows}], {rows})",
                page.format_score(score),
            ),
        ],
    )


def _revealing_column_sentence(page: FitPage) -> str | None:
    """Return a sentence on the column of the user's table that alone predicts the target best.
    Return None if its score is below `MIN_SCORE_ALONE`, or the majority class has that score.
    """
    fit, (names, values) = page.fit, page.table
    scores = [score_alone(fit, np.asarray(values)[:, j]) for j in range(len(names))]
    page.facts["scores_alone"] = dict(zip(names, scores))
    best = int(np.argmax(scores))
    rest = 1.0 if fit.numbers else 1 - float(np.bincount(fit.y).max() / fit.n_rows)
    if scores[best] < 1 - (1 - MIN_SCORE_ALONE) * rest:
        return None
    option = f": `--ignore {shlex.quote(names[best])}`" if page.places else ""
    return (
        f"{names[best]} alone gives {page.target} away: interpolation between the neighbours in "
        f"this column has an {page.score_name} of {page.format_score(scores[best])}. If it is not "
        f"known before {page.target}, leave it out{option}."
    )


def score_alone(fit: NetworkFit, column: Any) -> float:
    """Return the score of predictions of each row by linear interpolation between its neighbours in
    one column, without the row itself.
    """
    values: Any = list(column)
    if any(isinstance(value, str) for value in values):
        values = np.unique(list(map(str, values)), return_inverse=True)[1]
    x = np.nan_to_num(np.asarray(values, float))
    shuffled = np.random.default_rng(0).permutation(fit.n_rows)  # equal values in random order
    order = shuffled[np.argsort(x[shuffled], kind="stable")]
    x, y = x[order], (fit.y if fit.numbers else np.eye(len(fit.classes))[fit.y])[order]
    gaps = x[2:] - x[:-2]
    with np.errstate(all="ignore"):
        share = np.where(gaps > 0, (x[1:-1] - x[:-2]) / gaps, 0.5)
    inner = y[:-2].T + (y[2:] - y[:-2]).T * share
    predictions = np.empty(y.shape)
    predictions[order] = np.concatenate([y[1:2], inner.T, y[-2:-1]])
    return fit.score(predictions)


def dominant_row(values: Floats) -> tuple[int, float]:
    """Return the index of the row that adds most to the variance of a column, and the fraction of
    the variance that it adds, which is 0 for a constant column.
    """
    with np.errstate(all="ignore"):
        squares = np.square((values - values.mean()) / (np.abs(values).max() or 1.0))
        total = squares.sum()
    row = int(np.argmax(squares))
    return row, float(squares[row] / total) if total > 0 else 0.0


def _duplicate_fraction_code(column: str) -> str:
    return (
        f"np.square({column} - {column}.mean()).max() / np.square({column} - {column}.mean()).sum()"
    )


def near_duplicate_fraction(X: Floats, seed: int) -> float:
    """Return the fraction of rows that have a near copy, estimated from at most `MAX_QUERY_ROWS`
    random rows. A near copy is far closer than the `N_NEIGHBOURS`-th neighbour.

    In k dimensions the distance to the m-th neighbour of a row grows as ``m^(1/k)``, so the nearest
    one is rarely a hundred times closer than the sixteenth. If columns have few different values,
    rows are often equal by chance, so rows at a distance of 0 then do not count as copies.
    """
    N, k = X.shape
    if N <= 2 * N_NEIGHBOURS:
        return 0.0
    spread = X.std(axis=0)
    X = X[:, spread > 0] / spread[spread > 0]
    equal = _expected_equal_rows(X) <= MAX_EXPECTED_EQUAL_ROWS
    some = np.random.default_rng(seed).permutation(N)[: min(N, MAX_QUERY_ROWS)]
    step, found = max(1, MAX_DISTANCES // N), 0
    for start in range(0, len(some), step):
        rows = some[start : start + step]
        distances = cdist(X[rows], X)
        distances[np.arange(len(rows)), rows] = np.inf
        near = np.partition(distances, N_NEIGHBOURS - 1, axis=1)[:, :N_NEIGHBOURS]
        nearest, far = near.min(axis=1), near.max(axis=1)
        counts = (nearest < MAX_NEAR_COPY_RATIO * far) & ((nearest > 0) | equal)
        found += int(np.count_nonzero(counts))
    return found / len(some)


def _expected_equal_rows(X: Floats) -> float:
    """Return the expected number of rows that equal a given row if different columns are
    independent.
    """
    N, seen = len(X), list[Floats]()
    expected = N - 1.0
    for column in (X - X.mean(axis=0)).T:
        norm = np.linalg.norm(column)
        if any(abs(column @ other) > MAX_INDEPENDENT_CORRELATION * norm for other in seen):
            continue
        counts = np.unique(column, return_counts=True)[1]
        expected *= float(np.sum(counts * (counts - 1.0))) / (N * (N - 1.0))
        seen.append(column / norm)
        if expected <= MAX_EXPECTED_EQUAL_ROWS:
            break
    return expected

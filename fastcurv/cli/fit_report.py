"""A page on a fit: how well it predicts rows that it has not seen, how sure it is, which rows and
inputs it rests on, and where training stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import betaincinv

from ..common.checks import is_sparse
from ..common.protocols import Floats, Indices
from ..spectrum.results import as_json, number
from .fit_numbers import (
    LEVEL,
    MAX_CHANGE_FLOPS,
    MAX_DOTS,
    EstimatorFit,
    Fit,
    Numbers,
    Trained,
    loss_difference,
    measure,
)
from .report import Report

N_DECIDING_ROWS = 10  # rows shown whose removal moves a prediction most
N_LISTED_ROWS = 5  # rows in the tables of rows that matter
MAX_SHOWN_COLUMNS = 6  # of the table that belongs to a dot
MAX_TABLE_BYTES = 170_000  # of the numbers behind the choice of a dot, of a page of 300 kB
BYTES_PER_NUMBER = 7  # of a number in the page
N_GROUPS, MIN_GROUP_ROWS = 10, 10  # of rows of like probability
MAX_CONFUSION_CLASSES = 6  # of the whole table
MAX_DENSE_ENTRIES = 20_000_000  # of a sparse X that is made dense


class Page:
    """The page under construction: the report, its numbers, and the calls that return them."""

    def __init__(self, report: Report, found: Numbers, names: list[str], target: str) -> None:
        self.report, self.found, self.names, self.target = report, found, names, target
        self.fit = found.fit
        self.facts: dict[str, Any] = {}
        self.calls: list[dict[str, Any]] = []
        self.some: Indices = np.arange(self.fit.n)  # rows that pictures show
        self.change: Any = None  # (M, N) what removing each row does to their predictions
        self.table: tuple[list[str], Any] = names, self.fit.X

    def call(self, name: str, value: Any, code: str, shown: str) -> tuple[str, str]:
        """Record a number with its call; return how it is shown, and the call."""
        self.facts[name] = as_json(value)
        self.calls.append({"name": name, "value": as_json(value), "call": code})
        return shown, code

    @property
    def score_name(self) -> str:
        return "R\u00b2" if self.fit.numbers else "Accuracy"

    def score(self, x: float) -> str:
        return f"{x:.2f}" if self.fit.numbers else f"{x:.1%}"


def build(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    names: Sequence[str] | None = None,
    target: str | None = None,
    notes: Sequence[str] = (),
    source: str = "",
    progress: Callable[[str], None] | None = None,
    seed: int = 0,
    table: tuple[Sequence[str], Any] | None = None,
) -> tuple[Report, dict[str, Any]]:
    """Build the page on a fit.

    Parameters
    ----------
    estimator : MLPRegressor, MLPClassifier or Trained
        Fitted to X and y.
    X : array_like (N, k)
        Numbers, as the estimator was fitted to them.
    y : array_like (N,)
    names : sequence of str, optional
        Of the columns of X.
    target : str, optional
        Name of y.
    notes : sequence of str
        Sentences below the first screen.
    source : str
        Code that defines the fit, X and y, for the reader of the calls.
    progress : callable, optional
        Called with a few words as the work goes on.
    seed : int
        Of the rows that are drawn for pictures and for fits to some of the rows.
    table : (sequence of str, array_like (N, K)), optional
        Names and values of the columns as the reader knows them, for the rows that are shown; by
        default those of X.

    Returns
    -------
    Report, dict
        The page, and all of its numbers by name, with ``calls``: a list of ``name``, ``value`` and
        ``call``, and ``setup``, the code that calls use.

    Raises
    ------
    ValueError
        If y has several targets, or if X and y are not the rows of the fit.
    """
    note = progress or (lambda text: None)
    if is_sparse(X):
        if X.shape[0] * X.shape[1] > MAX_DENSE_ENTRIES:
            raise ValueError(
                f"X must have at most {MAX_DENSE_ENTRIES} entries for a report, got {X.shape}. Use "
                "fewer columns."
            )
        X = X.toarray()
    X = np.asarray(X)
    bare = isinstance(estimator, Trained)
    fit: Fit = Fit(estimator, X, y) if bare else EstimatorFit(estimator, X, y)
    found = measure(fit, note)
    columns = [f"x{i}" for i in range(X.shape[1])] if names is None else list(map(str, names))
    target = target or "y"
    page = Page(
        Report(f"A network for {target}: how far can it be trusted?"), found, columns, target
    )
    if table is not None:
        page.table = list(map(str, table[0])), np.asarray(table[1], dtype=object)
    note("pictures")
    _choose_rows(page, seed)
    first_screen(page)
    for sentence in notes:
        page.report.text(sentence)
    if fit.numbers:
        _certainty(page)
    else:
        _calibration(page)
        _confusion(page)
    _deciding_rows(page)
    _rows_that_matter(page)
    _code(page, source)
    page.facts |= {"calls": page.calls, "setup": "\n".join(found.setup)}
    return page.report, page.facts


def _choose_rows(page: Page, seed: int) -> None:
    """Choose the rows that pictures show, and compute what removing each row does to them."""
    found, fit = page.found, page.fit
    most = MAX_DOTS
    if found.out is not None:
        flops = 2.0 * fit.n * fit.ob.n_params
        columns = min(len(page.table[0]), MAX_SHOWN_COLUMNS) + 1
        behind = MAX_TABLE_BYTES - fit.n * columns * BYTES_PER_NUMBER
        behind = max(behind, MAX_TABLE_BYTES // 3)
        per_dot = 2 * N_DECIDING_ROWS * BYTES_PER_NUMBER
        most = min(most, max(10, int(MAX_CHANGE_FLOPS / flops)), behind // per_dot)
    if fit.n > most:
        drawn = np.random.default_rng(seed).choice(fit.n, most, replace=False)
        page.some = np.sort(drawn)
        draw = f"np.random.default_rng({seed}).choice(len(X), {most}, replace=False)"
        found.setup.append(f"some = np.sort({draw})")
    else:
        found.setup.append("some = np.arange(len(X))")
    if found.out is not None:
        page.change = found.out.change(fit.ob.X[page.some])


# --------------------------------------------------------------------------------------------------
# The first screen.


def first_screen(page: Page) -> None:
    """Say in words what is known of the fit, each number with its call."""
    found, fit, report = page.found, page.fit, page.report
    shape = fit.n, fit.X.shape[1]
    _say(
        page,
        f"{shape[0]} rows, {shape[1]} column{'s' * (shape[1] > 1)}.",
        [page.call("shape", list(shape), "X.shape", str(shape))],
    )
    _verdict(page)
    _score(page)
    _linear(page)
    if fit.numbers:
        _interval(page)
    if found.out is not None:
        _effective(page)
    if found.why:
        report.text(
            f"The rows left out come from {_folds(found)}, because {found.why}. Each was predicted "
            "by a network fitted again, from its own start, to the rows of the other folds."
        )


def _say(page: Page, sentence: str, calls: Sequence[tuple[str, str]]) -> None:
    page.report.lead(sentence).calls(calls)


def _folds(found: Numbers) -> str:
    return "10 folds" if found.n_folds == 10 else f"{found.n_folds} of 10 folds"


def _verdict(page: Page) -> None:
    point = page.found.point
    assert point is not None
    kind = point.kind.replace("_", " ")
    if point.kind == "minimum":
        sentence = "Proved minimum." if point.certified else "A minimum, not proved."
    else:
        sentence = f"No proved minimum: {kind}."
    page.facts |= {"kind": point.kind, "certified": bool(point.certified)}
    _say(page, sentence, [page.call("verdict", point.sentence, "point.sentence", point.sentence)])


def _score(page: Page) -> None:
    """Add the score of rows left out, and that of the rows of the fit."""
    found, fit = page.found, page.fit
    count = int(found.rows.sum())
    score, fitted = fit.score(found.left_out, found.rows), fit.score(fit.predictions())
    which = f"all {count} of them" if count == fit.n else f"{count} of {fit.n}"
    how = "" if found.closed else f", in {_folds(found)}"
    sentence = (
        f"{page.score_name} on rows left out, {which}{how}: {page.score(score)} (on the rows it "
        f"was fitted to: {page.score(fitted)})."
    )
    code = "out.score" if found.closed and _plain(fit) else fit.score_code("left_out")
    if count < fit.n:
        rows = "np.isfinite(left_out)" if fit.numbers else "np.isfinite(left_out[:, 0])"
        code = fit.score_code(f"left_out[{rows}]").replace("y.var", f"y[{rows}].var")
        code = code.replace("(y - ", f"(y[{rows}] - ").replace("== codes", f"== codes[{rows}]")
    calls = [
        page.call("left_out_score", score, code, page.score(score)),
        page.call("training_score", fitted, fit.fitted_score_code, page.score(fitted)),
    ]
    if found.closed:
        again = fit.score(found.folds, found.seen)
        page.facts["folds_score"], page.facts["n_folds"] = again, found.n_folds
    if not fit.numbers:
        loss = float(fit.losses(found.left_out)[found.rows].mean())
        sentence += f" Log loss: {loss:.3f}."
        code = (
            "out.losses.mean()"
            if found.closed
            else ("-np.nanmean(np.log(np.maximum(left_out[np.arange(len(y)), codes], 1e-15)))")
        )
        calls.append(page.call("left_out_log_loss", loss, code, f"{loss:.3f}"))
    page.facts["left_out_by"] = "rows" if found.closed else "folds"
    page.facts["left_out_rows"] = count
    _say(page, sentence, calls)


def _plain(fit: Fit) -> bool:
    """Return whether the score of rows left out is that of the loss."""
    return not fit.numbers or fit.ob.loss == "mse"


def _linear(page: Page) -> None:
    """Compare with a linear model, by the losses of the rows left out."""
    found, fit = page.found, page.fit
    if found.linear is None:
        return
    gain, error = loss_difference(found)
    score = found.linear.score
    if gain > 2 * error:
        then = ", so the network predicts better, by more than two standard errors"
    elif gain < -2 * error:
        then = ", which predicts better: the network is not needed here"
    else:
        then = ", so the network is not needed here"
    page.facts["network_needed"] = gain > 2 * error
    page.facts["loss_difference"], page.facts["loss_difference_error"] = gain, error
    code = "line.score" if _plain(fit) else fit.score_code(fit.units_code("line.predictions"))
    calls = [page.call("linear_score", score, code, page.score(score))]
    sentence = f"A linear model: {page.score(score)}"
    if not fit.numbers:
        loss = float(found.linear.out.losses.mean())
        sentence += f", log loss {loss:.3f}"
        calls.append(page.call("linear_log_loss", loss, "line.losses.mean()", f"{loss:.3f}"))
    if found.closed:
        if fit.numbers:
            line = fit.units_code("line.predictions")
            code = f"np.mean({fit.loss_code(line)} - {fit.loss_code('left_out')})"
        else:
            code = "np.mean(line.losses - out.losses)"
        calls.append(page.call("loss_difference", gain, code, f"{gain:.3g} \u00b1 {2 * error:.2g}"))
    _say(page, sentence + then + ".", calls)


def _interval(page: Page) -> None:
    """Add how far new targets are from predictions, for 95% of the rows."""
    found, fit = page.found, page.fit
    if found.closed:
        out = found.out
        assert out is not None
        low, high = out.interval(fit.ob.X[page.some], LEVEL)
        width = float(np.median(high - low)) / 2 * fit.scale
        code = f"np.median(np.subtract(*out.interval(X[some], {LEVEL}))) / -2 * {fit.scale_code}"
        how = "jackknife+"
    else:
        errors = np.abs(fit.y - found.left_out)[found.rows]
        width = float(np.quantile(errors, LEVEL, method="higher"))
        code = f'np.nanquantile(np.abs(y - left_out), {LEVEL}, method="higher")'
        how = _folds(found)
    if not math.isfinite(width):
        return
    sentence = (
        f"A new prediction is within {width:.3g} of the truth for 95% of new rows ({how}, "
        "estimated)."
    )
    _say(page, sentence, [page.call("half_width", width, code, f"{width:.3g}")])


def _effective(page: Page) -> None:
    out = page.found.out
    assert out is not None
    effective, n = float(out.hat_matrix_diag.sum()), page.fit.ob.n_params
    page.facts["n_params"] = n
    code = "out.hat_matrix_diag.sum()"
    call = page.call("effective_parameters", effective, code, f"{effective:.3g}")
    _say(page, f"{effective:.0f} effective parameters of {n}.", [call])


# --------------------------------------------------------------------------------------------------
# Pictures.


def _rounded(x: Any) -> list[Any]:
    """Return numbers with five significant digits, None where they are not finite."""
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in np.asarray(x, float).tolist()]


def _certainty(page: Page) -> None:
    """Draw targets against predictions of rows left out, with their intervals."""
    found, fit, target = page.found, page.fit, page.target
    shown = page.some[found.rows[page.some]]
    low, high = _left_out_intervals(page, shown)
    inside = (low <= fit.y[shown]) & (fit.y[shown] <= high)
    share = float(inside.mean())
    page.facts["inside"] = share
    page.report.section("How sure is it?")
    drawn = f", {len(shown)} of {fit.n} drawn at random" if len(shown) < found.rows.sum() else ""
    page.report.scatter(
        {
            "x": _rounded(found.left_out[shown]),
            "y": _rounded(fit.y[shown]),
            "low": _rounded(low),
            "high": _rounded(high),
            "out": (~inside).astype(int).tolist(),
            "names": shown.tolist(),
            "diagonal": True,
            "axes": {"xlabel": f"{target} predicted without the row", "ylabel": target},
        },
        f"Each dot is a row{drawn}: its target, and what a network predicts that was fitted "
        f"without it. {inside.sum()} of {len(shown)} targets ({share:.1%}) lie inside their 95% "
        "interval, which is computed without the row; the others are marked. On the dashed line "
        "predictions are exact.",
    )


def _left_out_intervals(page: Page, shown: Indices) -> tuple[Floats, Floats]:
    """Return jackknife+ intervals of rows of the fit, each without the row itself."""
    found, fit = page.found, page.fit
    errors = np.where(found.rows, np.abs(fit.y - found.left_out), np.nan)
    low, high = np.empty(len(shown)), np.empty(len(shown))
    at = {row: k for k, row in enumerate(page.some.tolist())}
    for k, row in enumerate(shown.tolist()):
        others = found.rows.copy()
        others[row] = False
        R = errors[others]
        middle = np.full(len(R), found.left_out[row])
        if found.closed:
            assert found.out is not None
            moved = found.out.predictions[row][:, None] + page.change[at[row]]
            middle = fit.units(moved.T)[others]
        place = math.ceil(LEVEL * (len(R) + 1)) - 1
        if place >= len(R):
            low[k], high[k] = -np.inf, np.inf
            continue
        high[k] = np.partition(middle + R, place)[place]
        low[k] = -np.partition(R - middle, place)[place]
    return low, high


def _calibration(page: Page) -> None:
    """Draw how often predicted classes are right, over their probability."""
    found, fit, report = page.found, page.fit, page.report
    rows = np.flatnonzero(found.rows)
    p, y = found.left_out[rows], fit.y[rows]
    sure, right = p.max(axis=1), p.argmax(axis=1) == y
    report.section("How sure is it?")
    order = np.argsort(sure, kind="stable")
    groups = np.array_split(order, max(1, min(N_GROUPS, len(rows) // MIN_GROUP_ROWS)))
    x = np.array([sure[g].mean() for g in groups])
    share = np.array([right[g].mean() for g in groups])
    bounds = np.array([_binomial_bounds(right[g].sum(), len(g)) for g in groups])
    report.scatter(
        {
            "x": _rounded(x),
            "y": _rounded(share),
            "low": _rounded(bounds[:, 0]),
            "high": _rounded(bounds[:, 1]),
            "names": list(range(len(groups))),
            "diagonal": True,
            "axes": {"xlabel": "probability of the predicted class", "ylabel": "share right"},
        },
        f"Rows in {len(groups)} groups of equal size, by the probability of the class that a "
        "network predicts for them without having seen them: how often it is right, with a 95% "
        "interval for the number of rows. On the dashed line probabilities are as they should be.",
    )
    mean = float(sure.mean())
    code = "np.nanmean(left_out.max(axis=1))"
    report.text(
        f"On average the predicted class has a probability of {mean:.1%}, and is right for "
        f"{right.mean():.1%} of the rows."
    ).calls([page.call("mean_probability", mean, code, f"{mean:.1%}")])


def _binomial_bounds(right: int, n: int) -> tuple[float, float]:
    """Return Clopper and Pearson's 95% interval of a share."""
    low = float(betaincinv(right, n - right + 1, 0.025)) if right > 0 else 0.0
    high = float(betaincinv(right + 1, n - right, 0.975)) if right < n else 1.0
    return low, high


def _confusion(page: Page) -> None:
    """Count the classes that are predicted for the rows of each class."""
    found, fit, K = page.found, page.fit, len(page.fit.classes)
    rows, table = np.flatnonzero(found.rows), np.zeros((K, K), int)
    np.add.at(table, (fit.y[rows], found.left_out[rows].argmax(axis=1)), 1)
    page.facts["confusion"] = table.tolist()
    report = page.report.section("Which classes are confused?")
    if K <= MAX_CONFUSION_CLASSES:
        header = ["class", *(f"predicted {name}" for name in fit.classes), "right"]
        report.table(
            header,
            [
                [str(name), *line.tolist(), f"{line[i] / max(1, line.sum()):.0%}"]
                for i, (name, line) in enumerate(zip(fit.classes, table))
            ],
        )
    else:
        off = table - np.diag(np.diag(table))
        most = np.argsort(-off, axis=None, kind="stable")[:10]
        pairs = [np.unravel_index(i, off.shape) for i in most if off.flat[i]]
        report.table(
            ["class", "predicted as", "rows"],
            [[str(fit.classes[i]), str(fit.classes[j]), int(off[i, j])] for i, j in pairs],
        )
    report.text("Every row is predicted by a network that has not seen it.")


def _effects(page: Page) -> Floats:
    """Return what removing each row does to the prediction of the shown rows, (M, N): in units of
    the target, or of the probability of the class that is predicted.
    """
    fit, found = page.fit, page.found
    z = fit.ob.model.predict(found.theta, fit.ob.X[page.some])
    moved = fit.units(np.asarray(z, float)[:, None] + page.change.transpose(0, 2, 1))
    now = fit.units(z)
    if fit.numbers:
        return np.asarray(moved - now[:, None])
    own = now.argmax(axis=1)[:, None, None]
    return np.asarray(
        np.take_along_axis(moved, own, 2)[:, :, 0] - np.take_along_axis(now, own[:, 0], 1)
    )


def _deciding_rows(page: Page) -> None:
    """Let the reader choose a row, and show the rows whose removal moves its prediction most."""
    found, fit, target, some = page.found, page.fit, page.target, page.some
    page.report.section("Which rows decided?")
    if found.out is None:
        page.report.text(f"This is not known here, because {found.why}.")
        return
    effects = _effects(page)
    order = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, :N_DECIDING_ROWS]
    picked = np.take_along_axis(effects, order, 1)
    what = "prediction" if fit.numbers else "probability of the predicted class"
    columns, rows = _values_of(page, np.unique(order))
    first = int(np.argmax(found.out.cooks_distance[some]))
    view = _dots(page, what) | {
        "names": some.tolist(),
        "others": order.tolist(),
        "effects": [[float(f"{v:.3g}") for v in line] for line in picked.tolist()],
        "columns": ["row", f"{what} if removed", target, *columns],
        "rows": rows,
        "chosen": first,
    }
    minimum = (
        ""
        if found.closed
        else " They are removed at this minimum; a network that is fitted again may end in another."
    )
    page.report.scatter(
        view,
        f"Choose a dot by a click, or with the arrow keys: the {order.shape[1]} rows whose removal "
        f"moves its {what} most are marked, orange if it goes up and green if it goes down, and "
        f"listed below with their values. Row numbers begin at 0.{minimum}",
    )
    row = int(some[first])
    if fit.numbers and not fit.exponential:
        code = f"np.abs(out.change(X[[{row}]])[0, 0]).max() * {fit.scale_code}"
        value = float(np.abs(picked[first]).max())
        page.report.calls([page.call("largest_change", value, code, f"{value:.3g}, of row {row}")])


def _dots(page: Page, what: str) -> dict[str, Any]:
    """Return where the rows are drawn, and what is known of each."""
    found, fit, target, some = page.found, page.fit, page.target, page.some
    z = fit.units(fit.ob.model.predict(found.theta, fit.ob.X[some]))
    if fit.numbers:
        x, y = z, fit.y[some]
        known = [f"predicted {p:.4g}, {target} {t:.4g}" for p, t in zip(x, y)]
        axes = {"xlabel": f"{target} predicted", "ylabel": target}
    else:
        assert found.out is not None
        own = z.argmax(axis=1)
        x, y = z[np.arange(len(z)), own], found.out.cooks_distance[some]
        known = [
            f"predicted {fit.classes[c]} with probability {p:.3f}, {target} {fit.classes[t]}"
            for c, p, t in zip(own, x, fit.y[some])
        ]
        axes = {"xlabel": what, "ylabel": "Cook's distance"}
    about = [
        f"Row {row}: {text}. The rows whose removal changes its {what} most:"
        for row, text in zip(some.tolist(), known)
    ]
    return {"x": _rounded(x), "y": _rounded(y), "about": about, "axes": axes} | (
        {"diagonal": True} if fit.numbers else {}
    )


def _values_of(page: Page, rows: Indices) -> tuple[list[str], dict[int, list[Any]]]:
    """Return names of columns, and the target and the values of these columns for some rows."""
    names, values = page.table
    columns = range(min(len(names), MAX_SHOWN_COLUMNS))
    found = {
        row: [_target(page.fit, row), *(_cell(values[row][c]) for c in columns)]
        for row in rows.tolist()
    }
    return [names[c] for c in columns], found


def _cell(x: Any) -> Any:
    """Return a value of a table for the page: words, or a number of four significant digits."""
    if isinstance(x, (int, np.integer)) and not isinstance(x, (bool, np.bool_)):
        return int(x)
    if isinstance(x, (float, np.floating)):
        return float(f"{x:.4g}") if math.isfinite(x) else "missing"
    return str(x)


def _rows_that_matter(page: Page) -> None:
    """List the rows that move the whole fit, and those that it predicts worst."""
    found, fit, target = page.found, page.fit, page.target
    report = page.report.section("Rows that matter")
    if found.out is not None:
        cook, hat = found.out.cooks_distance, found.out.hat_matrix_diag
        most = np.argsort(-cook, kind="stable")[:N_LISTED_ROWS]
        report.table(
            ["row", target, "predicted without it", "Cook's distance", "leverage"],
            [[int(i), _target(fit, i), _predicted(fit, found, i), cook[i], hat[i]] for i in most],
        )
        first = int(most[0])
        moved = _effects(page)[:, first]
        report.text(
            f"Row {first} moves the fit most. Without it predictions change by at most "
            f"{number(np.abs(moved).max())}, and by {number(np.sqrt(np.mean(moved**2)))} in root "
            "mean square."
        )
        value = float(cook[first])
        report.calls(
            [page.call("cooks_distance", value, "out.cooks_distance.max()", number(value))]
        )
        page.facts["influential_rows"] = most.tolist()
    losses = np.where(found.rows, fit.losses(found.left_out), -1.0)
    worst = np.argsort(-losses, kind="stable")[:N_LISTED_ROWS]
    page.facts["unexplained_rows"] = worst.tolist()
    report.section("Rows it cannot explain")
    report.table(
        ["row", target, "predicted without it", *_error_name(fit)],
        [
            [int(i), _target(fit, i), _predicted(fit, found, i), *_error(fit, found, i)]
            for i in worst
        ],
    )
    report.text(
        "These rows are predicted worst by networks that have not seen them. That does not show "
        "that their targets are wrong: rare rows and noise look the same."
    )


def _target(fit: Fit, i: int) -> Any:
    return _cell(float(fit.y[i])) if fit.numbers else str(fit.classes[fit.y[i]])


def _predicted(fit: Fit, found: Numbers, i: int) -> Any:
    p = found.left_out[i]
    if fit.numbers:
        return _cell(float(p))
    if not np.isfinite(p).all():
        return "not refitted"
    return f"{fit.classes[p.argmax()]} ({p.max():.0%})"


def _error_name(fit: Fit) -> list[str]:
    return ["error"] if fit.numbers else ["probability of its class"]


def _error(fit: Fit, found: Numbers, i: int) -> list[Any]:
    p = found.left_out[i]
    return [_cell(float(fit.y[i] - p))] if fit.numbers else [_cell(float(p[fit.y[i]]))]


def _code(page: Page, source: str) -> None:
    """Add the code that the calls of the page use."""
    lines = [source] if source else []
    page.report.section("The calls on this page")
    name = page.fit.name
    known = "" if source else f" `{name}` is the fit, `X` and `y` are its rows."
    page.report.text(f"Calls on this page use what these lines define.{known}")
    page.report.code("\n".join([*lines, *page.found.setup]))

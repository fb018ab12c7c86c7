"""Plots and tables of the HTML report on a fitted network (`fastcurv.report`), with the Python code
that returns their numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import betaincinv

from ...common.protocols import Floats, Indices
from ...spectrum.results import format_number, to_json_value
from .fit_network import NetworkFit
from .fit_numbers import (
    CONFIDENCE_LEVEL,
    MAX_REMOVAL_EFFECT_FLOPS,
    MAX_SHOWN_ROWS,
    N_SCORE_FOLDS,
    FitMeasurements,
    linear_model,
    log_evidence,
    loss_difference,
)
from .report import Report

# number of rows shown with each prediction: those whose removal changes it most
N_INFLUENTIAL_ROWS = 10
# number of rows in the tables of influential rows
N_LISTED_ROWS = 5
MAX_SHOWN_COLUMNS = 6  # maximum number of columns in the table that is shown for a dot
# maximum bytes of row data embedded in a page, so that the whole page has at most about 300 kB
MAX_ROW_DATA_BYTES = 250_000
SHOWN_ROW_BYTES = 200  # bytes per row in both plots, including its list of influential rows
MIN_SHOWN_ROWS = 10  # minimum number of rows that the reader can choose in a plot
MAX_CELL_CHARACTERS = 20  # maximum number of characters of a word in a table
# number of groups of rows with similar probability, and minimum number of rows in each group
N_CALIBRATION_BINS, MIN_CALIBRATION_BIN_ROWS = 10, 10
# fractions of the rows that are fitted to show whether more rows would help
LEARNING_CURVE_FRACTIONS = (1 / 8, 1 / 4, 1 / 2)
MIN_FIT_ROWS = 10  # minimum number of rows of a fit
# fraction of the rows that is fitted with other penalties; the other rows give the scores
FITTED_ROW_FRACTION = 2 / 3
# penalties of the refits, relative to the penalty of the fit
DECAY_RATIOS = (10.0, 10**0.5, 1.0, 10**-0.5, 0.1)
MAX_CURVE_POINTS = 200  # maximum number of points of a loss curve
# maximum number of columns in a table of slopes, if there is one table and if there are several
MAX_SLOPES, MAX_SLOPES_OF_CLASS = 20, 6
MAX_SLOPE_TABLES = 3  # maximum number of classes for which each has a table of slopes
N_STRONGEST_COLUMNS = 3  # number of columns named for each class if there are many classes
# maximum number of classes for which the whole confusion matrix is shown
MAX_CONFUSION_CLASSES = 6


class FitPage:
    """The state of the HTML report on a fitted network while it is built.

    Attributes
    ----------
    report : Report
        The report so far.
    facts : dict
        The numbers of the report by name.
    calls : list of dict
        The numbers that a reader can compute again, each as a dict with the keys "name", "value"
        and "call". The call is Python code that returns the value.
    places : sequence of str
        Places of the rows in the user's table, such as "line 9", or empty.
    some : ndarray (M,) of int
        Indices of the rows that the plots show.
    change : ndarray (M, d_out, N) or None
        Change of the outputs of the shown rows if each of the N rows of the fit is removed.
    """

    def __init__(
        self, report: Report, found: FitMeasurements, names: list[str], target: str, seed: int
    ) -> None:
        self.report, self.found, self.names, self.target = report, found, names, target
        self.seed = seed
        self.fit = found.fit
        self.facts: dict[str, Any] = {}
        self.calls: list[dict[str, Any]] = []
        self.some: Indices = np.arange(self.fit.n_rows)
        self.change: Any = None
        self.table: tuple[list[str], Any] = names, self.fit.X
        self.places: Sequence[str] = ()

    def row_name(self, row: int) -> str:
        """Return "Row 7" for the row with the index 7, with its place in the user's table."""
        return f"Row {row} ({self.places[row]})" if self.places else f"Row {row}"

    def record_call(self, name: str, value: Any, code: str, shown: str) -> tuple[str, str]:
        """Record the number `value` under `name`, with `code`, the Python code that returns this
        number. Return the pair (shown, code), where `shown` is the number as the report shows it.
        """
        self.facts[name] = to_json_value(value)
        self.calls.append({"name": name, "value": to_json_value(value), "call": code})
        return shown, code

    @property
    def score_name(self) -> str:
        return "R\u00b2" if self.fit.numbers else "Accuracy"

    def format_score(self, x: float) -> str:
        # adding 0.0 turns -0.0 into 0.0
        return f"{round(x, 2) + 0.0:.2f}" if self.fit.numbers else f"{x:.1%}"


def choose_shown_rows(page: FitPage) -> None:
    """Choose the rows that the plots show and set `page.some` to their indices. If leave-one-out
    results exist, set `page.change` to the changes of the outputs of these rows by the removal of
    each row of the fit.
    """
    found, fit, seed, most = page.found, page.fit, page.seed, MAX_SHOWN_ROWS
    if found.out is not None:
        flops = 2.0 * fit.n_rows * fit.ob.n_params
        most = min(
            most,
            max(MIN_SHOWN_ROWS, int(MAX_REMOVAL_EFFECT_FLOPS / flops)),
            _max_selectable_rows(page),
        )
    if fit.n_rows > most:
        drawn = np.random.default_rng(seed).choice(fit.n_rows, most, replace=False)
        page.some = np.sort(drawn)
        draw = f"np.random.default_rng({seed}).choice(len(X), {most}, replace=False)"
        found.setup.append(f"shown = np.sort({draw})")
    else:
        found.setup.append("shown = np.arange(len(X))")
    if found.out is not None:
        page.change = found.out.output_changes(fit.ob.X[page.some])


def _max_selectable_rows(page: FitPage) -> int:
    """Return the number of rows that the reader can choose in plots if their data take at most
    `MAX_ROW_DATA_BYTES`, but at least `MIN_SHOWN_ROWS`.
    """
    sample = np.arange(0, page.fit.n_rows, max(1, page.fit.n_rows // 200))
    _, rows = _row_values(page, sample)
    row_bytes = 8 + len(json.dumps(list(rows.values()))) / len(sample)
    every = (MAX_ROW_DATA_BYTES - page.fit.n_rows * row_bytes) / SHOWN_ROW_BYTES
    # each dot may refer to rows that no other dot refers to
    own = MAX_ROW_DATA_BYTES / (SHOWN_ROW_BYTES + N_INFLUENTIAL_ROWS * row_bytes)
    return max(MIN_SHOWN_ROWS, int(max(every, own)))


def _round_digits(x: Any) -> list[Any]:
    """Return the entries of x, rounded to five significant digits, as a list. Entries that are not
    finite become None.
    """
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in np.asarray(x, float).tolist()]


def add_interval_plot(page: FitPage) -> None:
    """Add a plot to the report: the targets of left-out rows against their predictions, with
    intervals.
    """
    found, fit, target = page.found, page.fit, page.target
    shown = page.some[found.rows[page.some]]
    low, high = _jackknife_plus_intervals(page, shown)
    inside = (low <= fit.y[shown]) & (fit.y[shown] <= high)
    share = float(inside.mean())
    page.report.add_section("How sure is it?")
    drawn = (
        f", {len(shown)} of {fit.n_rows} drawn at random" if len(shown) < found.rows.sum() else ""
    )
    page.report.add_scatter(
        {
            "x": _round_digits(found.left_out[shown]),
            "y": _round_digits(fit.y[shown]),
            "low": _round_digits(low),
            "high": _round_digits(high),
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
    moved = ""
    if found.closed:
        change = "out.output_changes(X[[j]])[0, 0, i]"
        moved = f" + {change} * {fit.scale_code}"
        if fit.exponential:
            moved = f" * np.exp({change})"
    found.setup += [
        "def is_inside(j):",
        "    i = np.setdiff1d(np.flatnonzero(np.isfinite(left_out)), [j])",
        f"    R, middle = np.abs(y - left_out)[i], left_out[j]{moved}",
        f"    k = int(np.ceil({CONFIDENCE_LEVEL} * (len(i) + 1))) - 1",
        "    return -np.sort(R - middle)[k] <= y[j] <= np.sort(middle + R)[k]",
    ]
    rows = "shown" if found.rows.all() else "shown[np.isfinite(left_out[shown])]"
    code = f"np.mean([is_inside(j) for j in {rows}])"
    page.report.add_calls([page.record_call("inside", share, code, f"{share:.1%}")])


def _jackknife_plus_intervals(page: FitPage, shown: Indices) -> tuple[Floats, Floats]:
    """Return the lower and upper ends of jackknife+ intervals for the rows `shown` of the fit. The
    interval of a row is computed without that row.
    """
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
            middle = fit.outputs_to_predictions(moved.T)[others]
        place = math.ceil(CONFIDENCE_LEVEL * (len(R) + 1)) - 1
        if place >= len(R):
            low[k], high[k] = -np.inf, np.inf
            continue
        high[k] = np.partition(middle + R, place)[place]
        low[k] = -np.partition(R - middle, place)[place]
    return low, high


def add_calibration_plot(page: FitPage) -> None:
    """Add a plot to the report: the fraction of correct predictions against the predicted
    probability, for groups of rows.
    """
    found, fit, report = page.found, page.fit, page.report
    rows = np.flatnonzero(found.rows)
    p, y = found.left_out[rows], fit.y[rows]
    sure, right = p.max(axis=1), p.argmax(axis=1) == y
    report.add_section("How sure is it?")
    order = np.argsort(sure, kind="stable")
    groups = np.array_split(
        order, max(1, min(N_CALIBRATION_BINS, len(rows) // MIN_CALIBRATION_BIN_ROWS))
    )
    x = np.array([sure[g].mean() for g in groups])
    share = np.array([right[g].mean() for g in groups])
    bounds = np.array([_binomial_bounds(right[g].sum(), len(g)) for g in groups])
    report.add_scatter(
        {
            "x": _round_digits(x),
            "y": _round_digits(share),
            "low": _round_digits(bounds[:, 0]),
            "high": _round_digits(bounds[:, 1]),
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
    report.add_text(
        f"On average the predicted class has a probability of {mean:.1%}, and is right for "
        f"{right.mean():.1%} of the rows."
    ).add_calls([page.record_call("mean_probability", mean, code, f"{mean:.1%}")])


def _binomial_bounds(right: int, n: int) -> tuple[float, float]:
    """Return the Clopper-Pearson 95% interval (low, high) of a probability, for `right` successes
    in n observations.
    """
    low = float(betaincinv(right, n - right + 1, 0.025)) if right > 0 else 0.0
    high = float(betaincinv(right + 1, n - right, 0.975)) if right < n else 1.0
    return low, high


def add_confusion_matrix(page: FitPage) -> None:
    """Add the confusion matrix of the left-out rows to the report: for each class, the number of
    its rows that are predicted as each class.
    """
    found, fit, K = page.found, page.fit, len(page.fit.classes)
    rows, table = np.flatnonzero(found.rows), np.zeros((K, K), int)
    np.add.at(table, (fit.y[rows], found.left_out[rows].argmax(axis=1)), 1)
    page.facts["confusion"] = table.tolist()
    report = page.report.add_section("Which classes are confused?")
    if K <= MAX_CONFUSION_CLASSES:
        header = ["class", *(f"predicted {name}" for name in fit.classes), "right"]
        report.add_table(
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
        report.add_table(
            ["class", "predicted as", "rows"],
            [[str(fit.classes[i]), str(fit.classes[j]), int(off[i, j])] for i, j in pairs],
        )
    first = int(table[0, 0])
    code = "np.sum((codes == 0) & (left_out.argmax(axis=1) == 0))"
    if not found.rows.all():
        code = "np.sum((codes == 0)[seen] & (left_out.argmax(axis=1) == 0)[seen])"
    report.add_text("Every row is predicted by a network that has not seen it.").add_calls(
        [page.record_call("first_class_right", first, code, str(first))]
    )


def _row_removal_effects(page: FitPage) -> Floats:
    """Return an array (M, N) with a row for each of the M shown rows and a column for each of the N
    rows of the fit. Entry (i, j) is the change of the prediction of shown row i if row j is removed
    from the fit. For classification, the prediction is the probability of the class that the fit of
    all rows predicts.
    """
    fit, found = page.fit, page.found
    z = found.ob.model.predict(found.theta, fit.ob.X[page.some])
    moved = fit.outputs_to_predictions(
        np.asarray(z, float)[:, None] + page.change.transpose(0, 2, 1)
    )
    now = fit.outputs_to_predictions(z)
    if fit.numbers:
        return np.asarray(moved - now[:, None])
    own = now.argmax(axis=1)[:, None, None]
    return np.asarray(
        np.take_along_axis(moved, own, 2)[:, :, 0] - np.take_along_axis(now, own[:, 0], 1)
    )


def add_influence_plot(page: FitPage) -> None:
    """Add a plot to the report, in which the reader chooses a row and sees the rows of the fit
    whose removal changes the prediction of the chosen row most.
    """
    found, fit, target, some = page.found, page.fit, page.target, page.some
    page.report.add_section("Which rows determine a prediction?")
    if found.out is None:
        page.report.add_text(f"This is not known here, because {found.why}.")
        return
    effects = _row_removal_effects(page)
    order = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, :N_INFLUENTIAL_ROWS]
    picked = np.take_along_axis(effects, order, 1)
    what = "prediction" if fit.numbers else "probability of the predicted class"
    columns, rows = _row_values(page, np.unique(order))
    first = int(np.argmax(found.out.cooks_distance[some]))
    view = _scatter_view(page, what) | {
        "names": some.tolist(),
        "others": order.tolist(),
        "effects": [[float(f"{v:.3g}") for v in line] for line in picked.tolist()],
        "columns": ["row", "if removed", target, *columns],
        "rows": rows,
        "chosen": first,
    }
    minimum = (
        ""
        if found.closed
        else " They are removed at this minimum; a network that is fitted again may end in another."
    )
    page.report.add_scatter(
        view,
        f"Choose a dot by a click, or with the arrow keys: the {order.shape[1]} rows whose removal "
        f"moves its {what} most are marked, orange if it goes up and green if it goes down, and "
        f"listed below with their values. Row numbers begin at 0.{minimum}",
    )
    row = int(some[first])
    if fit.numbers and not fit.exponential:
        code = f"np.abs(out.output_changes(X[[{row}]])[0, 0]).max() * {fit.scale_code}"
        value = float(np.abs(picked[first]).max())
        page.report.add_calls(
            [
                page.record_call(
                    "largest_change", value, code, f"{value:.3g}, the largest for row {row},"
                )
            ]
        )


def _scatter_view(page: FitPage, what: str) -> dict[str, Any]:
    """Return the view for `Report.add_scatter`, with a dot and a string for each shown row. `what`
    names the predicted quantity.
    """
    found, fit, target, some = page.found, page.fit, page.target, page.some
    z = fit.outputs_to_predictions(found.ob.model.predict(found.theta, fit.ob.X[some]))
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
    view = {"x": _round_digits(x), "y": _round_digits(y), "about": known, "axes": axes}
    view["change"] = f"The rows whose removal changes its {what} most:"
    return view | ({"diagonal": True} if fit.numbers else {})


def _row_values(page: FitPage, rows: Indices) -> tuple[list[str], dict[int, list[Any]]]:
    """Return the names of the columns that are shown, and a dict with a list for each of the given
    rows: its target and its values in these columns.
    """
    names, values = page.table
    columns = range(min(len(names), MAX_SHOWN_COLUMNS))
    found = {
        row: [_target_cell(page.fit, row), *(_format_cell(values[row][c]) for c in columns)]
        for row in rows.tolist()
    }
    return [names[c] for c in columns], found


def _format_cell(x: Any) -> Any:
    """Format a table value for the report. Round floats to four significant digits, keep integers,
    replace NaN and infinity by "missing", and truncate the string of any other value to
    `MAX_CELL_CHARACTERS` characters.
    """
    if isinstance(x, (int, np.integer)) and not isinstance(x, (bool, np.bool_)):
        return int(x)
    if isinstance(x, (float, np.floating)):
        return float(f"{x:.4g}") if math.isfinite(x) else "missing"
    word = str(x)
    return word if len(word) <= MAX_CELL_CHARACTERS else word[: MAX_CELL_CHARACTERS - 1] + "\u2026"


def add_influential_row_tables(page: FitPage) -> None:
    """Add tables to the report: the rows whose removal changes the fit most, and the rows with the
    largest errors.
    """
    found, fit, target = page.found, page.fit, page.target
    report = page.report.add_section("Rows that matter")
    if found.out is not None:
        cook, hat = found.out.cooks_distance, found.out.hat_matrix_diag
        most = np.argsort(-cook, kind="stable")[:N_LISTED_ROWS]
        report.add_table(
            ["row", target, "predicted without it", "Cook's distance", "leverage"],
            [
                [int(i), _target_cell(fit, i), _prediction_cell(fit, found, i), cook[i], hat[i]]
                for i in most
            ],
        )
        _add_rows_of_table(page, most)
        _add_prediction_without_row(page, int(most[0]))
        page.facts["influential_rows"] = most.tolist()
    losses = np.full(fit.n_rows, -1.0)
    losses[found.rows] = fit.row_losses_for_targets(fit.y[found.rows], found.left_out[found.rows])
    worst = np.argsort(-losses, kind="stable")[:N_LISTED_ROWS]
    page.facts["unexplained_rows"] = worst.tolist()
    report.add_section("Rows it cannot explain")
    report.add_table(
        ["row", target, "predicted without it", *_error_name(fit)],
        [
            [
                int(i),
                _target_cell(fit, i),
                _prediction_cell(fit, found, i),
                *_left_out_error(fit, found, i),
            ]
            for i in worst
        ],
    )
    _add_rows_of_table(page, worst)
    report.add_text(
        "These rows are predicted worst by networks that have not seen them. That does not show "
        "that their targets are wrong: rare rows and noise look the same."
    )
    i = int(worst[0])
    p = found.left_out[i] if fit.numbers else found.left_out[i, fit.y[i]]
    code = f"left_out[{i}]" if fit.numbers else f"left_out[{i}, codes[{i}]]"
    report.add_calls([page.record_call("worst_prediction", float(p), code, f"{p:.4g}")])


def _add_rows_of_table(page: FitPage, rows: Indices) -> None:
    """Add a table to the report with the place of some rows in the user's table, and their
    cells.
    """
    if page.places:
        columns, cells = _row_values(page, rows)
        lines = [[int(i), page.places[i], *cells[int(i)][1:]] for i in rows]
        page.report.add_table(["row", "place", *columns], lines)


def _add_prediction_without_row(page: FitPage, row: int) -> None:
    """Add a sentence to the report on how much predictions change if the row with the index `row`
    is left out of the fit.
    """
    found, fit = page.found, page.fit
    assert found.out is not None
    moved = _row_removal_effects(page)[:, row]
    most, mean = float(np.abs(moved).max()), float(np.sqrt(np.mean(moved**2)))
    what = "predictions" if fit.numbers else "probabilities of the predicted classes"
    page.report.add_text(
        f"{page.row_name(row)} moves the fit most. Without it {what} change by at most "
        f"{format_number(most)}, and by {format_number(mean)} in root mean square."
    )
    cook, hat = float(found.out.cooks_distance[row]), float(found.out.hat_matrix_diag[row])
    calls = [
        page.record_call("cooks_distance", cook, f"out.cooks_distance[{row}]", format_number(cook)),
        page.record_call("leverage", hat, f"out.hat_matrix_diag[{row}]", format_number(hat)),
    ]
    if fit.numbers and not fit.exponential:
        change = f"out.output_changes(X[shown])[:, 0, {row}] * {fit.scale_code}"
        code = f"np.abs({change}).max()"
        calls.append(page.record_call("change_without_row", most, code, format_number(most)))
        code = f"np.sqrt(np.mean(np.square({change})))"
        calls.append(page.record_call("mean_change_without_row", mean, code, format_number(mean)))
    page.report.add_calls(calls)


def _target_cell(fit: NetworkFit, i: int) -> Any:
    return _format_cell(float(fit.y[i])) if fit.numbers else str(fit.classes[fit.y[i]])


def _prediction_cell(fit: NetworkFit, found: FitMeasurements, i: int) -> Any:
    p = found.left_out[i]
    if fit.numbers:
        return _format_cell(float(p))
    if not np.isfinite(p).all():
        return "not refitted"
    return f"{fit.classes[p.argmax()]} ({p.max():.0%})"


def _error_name(fit: NetworkFit) -> list[str]:
    return ["error"] if fit.numbers else ["probability of its class"]


def _left_out_error(fit: NetworkFit, found: FitMeasurements, i: int) -> list[Any]:
    p = found.left_out[i]
    return (
        [_format_cell(float(fit.y[i] - p))] if fit.numbers else [_format_cell(float(p[fit.y[i]]))]
    )


# --------------------------------------------------------------------------------------------------
# The effects of the inputs on predictions.


def add_slope_tables(page: FitPage) -> None:
    """Add tables to the report of the slopes of predictions with respect to each column of X: the
    median over the rows and the range from 5% to 95%.
    """
    fit, report, rows = page.fit, page.report, page.some
    report.add_section("Which way does each input push?")
    J = fit.prediction_slopes(rows) * fit.X.std(axis=0)  # shape (M, outputs, k)
    code = f"({fit.slopes_code} * X.std(axis=0))"
    if J.shape[1] > 1:
        J = J - J.mean(axis=1, keepdims=True)
        code = f"({code} - {code}.mean(axis=1, keepdims=True))"
    low, middle, high = np.percentile(J, [5, 50, 95], axis=0)
    shown = range(J.shape[1]) if J.shape[1] <= MAX_SLOPE_TABLES else range(0)
    each = MAX_SLOPES if len(shown) == 1 else MAX_SLOPES_OF_CLASS
    for c in shown:
        order = np.argsort(-np.abs(J[:, c]).mean(axis=0), kind="stable")[:each]
        if len(shown) > 1:
            report.add_text(f"Towards {fit.classes[c]}:")
        lines = [(page.names[i], low[c, i], middle[c, i], high[c, i]) for i in order.tolist()]
        report.add_ranges(["column", "5%", "median", "95%"], lines)
    if not shown:
        _add_strongest_slopes(page, middle)
    first = int(np.abs(J[:, 0]).mean(axis=0).argmax())
    value = float(middle[0, first])
    call = f"np.median({code}[:, 0, {first}])"
    page.facts["slopes"] = to_json_value(middle)
    what = page.target if fit.numbers else "the log-odds"
    if not fit.numbers and J.shape[1] == 1:
        what += f" of {fit.classes[1]}"
    elif not fit.numbers:
        what = "the logarithm of the probability of a class, relative to the mean of all classes,"
    report.add_text(
        f"How much {what} changes in the network for one standard deviation more of a column, with "
        "the other columns held fixed: the median over the rows, and the range from 5% to 95% of "
        "them, sorted by size. These are derivatives of the network, not effects in the world: "
        "columns that go together share one."
    ).add_calls([page.record_call("slope", value, call, f"{value:.3g}, for {page.names[first]},")])


def _add_strongest_slopes(page: FitPage, middle: Floats) -> None:
    """Add a table to the report of the columns of X with the largest effects for and against each
    of many classes, from the median slopes `middle` (classes, k).
    """

    def names(order: Indices) -> str:
        return ", ".join(page.names[i] for i in order.tolist())

    lines = [
        [
            str(name),
            names(order[: -N_STRONGEST_COLUMNS - 1 : -1]),
            names(order[:N_STRONGEST_COLUMNS]),
        ]
        for name, order in zip(page.fit.classes, np.argsort(middle, axis=1))
    ]
    page.report.add_table(["class", "more of these speaks for it", "against it"], lines)


# --------------------------------------------------------------------------------------------------
# Other fits: fewer rows, other penalties, fewer iterations.


def add_learning_curve(page: FitPage) -> None:
    """Add a plot to the report: the score on held-out rows against the number of fitted rows, for
    the network and for a linear model.
    """
    found, fit = page.found, page.fit
    page.report.add_section("Would more rows help? Would a linear model do?")
    drawn = np.random.default_rng(page.seed).permutation(fit.n_rows)
    found.setup.append(f"drawn = np.random.default_rng({page.seed}).permutation(len(X))")
    sizes, scores, errors, linear = [], [], [], []
    for share in LEARNING_CURVE_FRACTIONS:
        m = int(fit.n_rows * share)
        if m < MIN_FIT_ROWS or not found.has_time_for(share):
            continue
        rows, others = drawn[:m], drawn[m:]
        again = fit.refit_rows(rows)
        p = fit.align_classes(again.predict(fit.ob.X[others]), again.classes)
        line = found.linear and linear_model(again, (float(found.linear.ob.l2) * fit.n_rows / m,))
        sizes.append(m)
        scores.append(fit.score_for_targets(fit.y[others], p))
        errors.append(fit.score_error(fit.y[others], p))
        if line:
            z = again.outputs_to_predictions(line.ob.model.predict(line.theta, fit.ob.X[others]))
            linear.append(fit.score_for_targets(fit.y[others], fit.align_classes(z, again.classes)))
    whole = found.rows
    sizes.append(fit.n_rows if found.closed else int(fit.n_rows * (1 - 1 / N_SCORE_FOLDS)))
    scores.append(fit.score(found.left_out, whole))
    errors.append(fit.score_error(fit.y[whole], found.left_out[whole]))
    lines = [_curve_view("network", sizes, scores, errors)]
    if found.linear is not None and len(linear) == len(sizes) - 1:
        lines.append(_curve_view("linear model", sizes, [*linear, found.linear.score]))
    page.facts["rows_curve"] = {"rows": sizes, "score": scores, "standard_error": errors}
    page.facts["rows_curve"]["linear"] = linear
    axes = {"xlabel": "rows fitted", "ylabel": f"{page.score_name} on rows left out"}
    page.report.add_chart(
        [{"lines": lines, "x": "log", "y": "linear", **axes}],
        "A network fitted to some of the rows, drawn at random, and its score on all others; at "
        "the right the fit itself, by the rows left out. The band is one standard error of the "
        "rows that the score is computed from.",
        still=True,
    )
    _add_score_comparisons(page, sizes, scores, errors)


def _curve_view(name: str, x: Any, y: Any, errors: Any = None) -> dict[str, Any]:
    line = {"name": name, "x": list(x), "y": _round_digits(y), "dots": True}
    if errors is not None:
        line |= {
            "low": _round_digits(np.subtract(y, errors)),
            "high": _round_digits(np.add(y, errors)),
        }
    return line


def _add_score_comparisons(
    page: FitPage, sizes: list[int], scores: list[float], errors: list[float]
) -> None:
    """Add sentences to the report on the improvement by more rows, from the scores and standard
    errors of fits to growing numbers of rows, `sizes`, and on the difference between the linear
    model and the network.
    """
    found, fit, report, calls = page.found, page.fit, page.report, []
    if len(sizes) > 1:
        m, gain = sizes[-2], scores[-1] - scores[-2]
        error = math.hypot(errors[-1], errors[-2])
        clear = abs(gain) > 2 * error
        report.add_text(
            f"From {m} to {sizes[-1]} rows the score went from {page.format_score(scores[-2])} to "
            f"{page.format_score(scores[-1])}, "
            + ("a difference beyond" if clear else "which is within")
            + " two standard errors. "
            + (
                "More rows of the same kind are likely to help."
                if clear and gain > 0
                else "The scores do not show that more rows would help."
            )
        )
        code = f"score(again(drawn[:{m}], drawn[{m}:]), drawn[{m}:])"
        calls = [
            page.record_call("score_of_fewer_rows", scores[-2], code, page.format_score(scores[-2]))
        ]
    if found.linear is not None and found.closed:
        gain, error = loss_difference(found)
        what = "squared error" if fit.numbers else "log loss"
        side = "larger" if gain > 0 else "smaller"
        report.add_text(
            f"On rows left out the {what} of the linear model is {side} by {abs(gain):.3g} on "
            f"average, with a standard error of {error:.2g}."
        )
        code = "np.mean(line.losses - out.losses)"
        if fit.numbers:
            line = fit.predictions_code("line.predictions")
            code = f"np.mean((y - ({line})) ** 2 - (y - left_out) ** 2)"
        calls.append(page.record_call("loss_difference", gain, code, f"{gain:.3g}"))
    report.add_calls(calls)


def add_validation_curve(page: FitPage) -> None:
    """Add a plot to the report: the score on left-out rows, and the evidence, for other penalties.

    Each penalty has a fit of its own, from the start of the reported fit, because a user who
    changes alpha obtains this fit. `regularization_path` reaches other minima for small penalties,
    since it follows the minima of large penalties, and takes 2 to 20 times as long for its
    verdicts (diabetes: 0.50 instead of 0.12 seconds of processor time).
    """
    found, fit, report = page.found, page.fit, page.report
    report.add_section("How much decay?")
    most, fewer = _split_rows(page)
    if len(most) < MIN_FIT_ROWS or not found.has_time_for(FITTED_ROW_FRACTION * len(DECAY_RATIOS)):
        report.add_text("Other penalties were not tried, to keep the time short.")
        return
    ratios, scores, losses, evidences = [], [], [], []
    y = fit.y[fewer]
    for ratio in DECAY_RATIOS:
        again = fit.refit_rows(most, ratio)
        p = fit.align_classes(again.predict(fit.ob.X[fewer]), again.classes)
        ratios.append(ratio)
        scores.append(fit.score_for_targets(y, p))
        losses.append(fit.row_losses_for_targets(y, p))
        evidences.append(log_evidence(again))
    own = DECAY_RATIOS.index(1.0)
    page.facts["decay"] = {"ratio": ratios, "score": scores, "evidence": to_json_value(evidences)}
    axes = {"xlabel": "decay, relative to that of the fit", "x": "log", "y": "linear"}
    views = [{"lines": [_curve_view("score", ratios, scores)], "name": "score"} | axes]
    views[0]["ylabel"] = f"{page.score_name} on rows left out"
    known = [(r, e) for r, e in zip(ratios, evidences) if math.isfinite(e)]
    if len(known) > 1:
        line = _curve_view("evidence", *zip(*known))
        views.append({"lines": [line], "name": "evidence", "ylabel": "evidence"} | axes)
    report.add_chart(
        views,
        f"Networks fitted to {len(most)} of the rows with other penalties: the score on the "
        f"{len(fewer)} other rows, and the logarithm of the evidence of the rows that were fitted, "
        "by the Laplace approximation.",
        still=True,
    )
    _add_best_decay_sentence(page, losses, evidences, own)
    code = "score(again(most, fewer, {}), fewer)"
    calls = [
        page.record_call(
            "score_at_decay", scores[own], code.format(1), page.format_score(scores[own])
        )
    ]
    if math.isfinite(evidences[own]):
        e = evidences[own]
        calls.append(page.record_call("evidence", e, "evidence(most, 1)", f"{e:.1f}"))
    report.add_calls(calls)


def _add_best_decay_sentence(
    page: FitPage, losses: list[Any], evidences: list[float], own: int
) -> None:
    """Add a sentence to the report that states whether another penalty than that of the fit, with
    index `own` in `DECAY_RATIOS`, predicts better by more than two standard errors. `losses`
    holds an array of losses by row for each penalty, and `evidences` the logarithms of the
    evidence.
    """
    best = int(np.argmin([loss.mean() for loss in losses]))
    d = losses[own] - losses[best]
    clear = d.mean() > 2 * d.std(ddof=1) / math.sqrt(len(d))
    if best != own and clear:
        text = (
            f"{DECAY_RATIOS[best]:.3g} times the decay predicts better, by more than two standard "
            "errors of the difference."
        )
    else:
        text = "No other decay predicts better by more than two standard errors of the difference."
    if np.isfinite(evidences).sum() > 1:
        ratio = DECAY_RATIOS[int(np.nanargmax(evidences))]
        times = "" if ratio == 1 else f"{ratio:.3g} times "
        text += f" The evidence is largest at {times}the decay of the fit."
    page.report.add_text(text)


def _split_rows(page: FitPage) -> tuple[Indices, Indices]:
    """Return the indices of two thirds of the rows, drawn at random, and those of the other rows.
    Add the code of this split to `page.found.setup`, which the report shows.
    """
    fit, setup = page.fit, page.found.setup
    drawn = np.random.default_rng(page.seed).permutation(fit.n_rows)
    m = int(fit.n_rows * FITTED_ROW_FRACTION)
    line = f"most, fewer = drawn[:{m}], drawn[{m}:]"
    if line not in setup:
        setup.append(line)
    return drawn[:m], drawn[m:]


def add_verdict_and_loss_curves(page: FitPage) -> None:
    """Add the verdict and the ends of the spectrum to the report. Then fit the network to some of
    the rows, and plot the loss of the other rows during this fit, with its minimum.
    """
    found, fit, report, point = page.found, page.fit, page.report, page.found.point
    assert point is not None
    report.add_section("Where did training stop?").add_verdict_sentence(point)
    text = f"The eigenvalues of the Hessian range from {format_number(point.lambda_min)} to "
    report.add_text(text + f"{format_number(point.lambda_max)}.").add_calls(
        [
            page.record_call(
                "lambda_min", point.lambda_min, "point.lambda_min", format_number(point.lambda_min)
            ),
            page.record_call(
                "lambda_max", point.lambda_max, "point.lambda_max", format_number(point.lambda_max)
            ),
        ]
    )
    most, fewer = _split_rows(page)
    if len(most) < MIN_FIT_ROWS or not found.has_time_for(1.0):
        return
    losses, held = fit.fit_loss_curves(most, fewer)
    steps = np.arange(len(held))
    every = max(1, len(steps) // MAX_CURVE_POINTS)
    at = np.unique(np.r_[steps[::every], steps[-1]])
    lines = [
        {"name": name, "x": at.tolist(), "y": _round_digits(np.asarray(curve)[at])}
        for name, curve in (("rows fitted, with the penalty", losses), ("other rows", held))
    ]
    positive = min(np.min(losses), np.min(held)) > 0
    axes = {"xlabel": "iteration", "ylabel": "loss", "x": "linear"}
    report.add_chart(
        [{"lines": lines, "y": "log" if positive else "linear"} | axes],
        f"The loss of {len(most)} rows in a fit to them, and that of the {len(fewer)} others.",
        still=True,
    )
    best, end = int(np.argmin(held)), float(held[-1])
    lowest = float(held[best])
    text = f"The loss of the other rows was lowest, {lowest:.4g}, after {best} of {steps[-1]} "
    text += f"iterations, and {end:.4g} at the end."
    found.setup.append(fit.watched_fit_code)
    report.add_text(text).add_calls(
        [
            page.record_call("lowest_iteration", best, "np.argmin(curve)", str(best)),
            page.record_call("lowest_held_out_loss", lowest, "min(curve)", f"{lowest:.4g}"),
            page.record_call("last_held_out_loss", end, "curve[-1]", f"{end:.4g}"),
        ]
    )

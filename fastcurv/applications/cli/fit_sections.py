"""Sections of the HTML report on a fit (`fastcurv.report`): figures, sentences, and the Python code
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
from ..uncertainty.laplace import LOSSES_OF_KNOWN_INFORMATION, laplace_posterior
from .fit_network import MIN_PROBABILITY, NetworkFit
from .fit_numbers import (
    CONFIDENCE_LEVEL,
    CONSTANT_SPREAD,
    MAX_REMOVAL_EFFECT_FLOPS,
    N_SCORE_FOLDS,
    FitMeasurements,
    beats_constant_prediction,
    better_decay,
    conformal_place,
    conformal_width,
    decay_losses,
    has_jackknife_intervals,
    linear_model,
    loss_difference,
    relative_errors,
    spread_at,
)
from .fit_pictures import draw_confusion, draw_dots, draw_lines, draw_ranges
from .report import Report

MAX_PLAIN_SIZE = 1e8  # numbers below this size are written without an exponent
MAX_LEADS = 5  # maximum number of sentences on the first screen
MAX_SHOWN_ROWS = 500  # maximum number of rows that a figure shows
MAX_DOMAIN_ROWS = 200  # maximum number of rows in the figure of the domain
N_LABELLED_ROWS = 10  # number of rows with the largest errors that are labelled
# number of rows shown with each prediction: those whose removal changes it most
N_INFLUENTIAL_ROWS = 10
# number of rows in the tables of influential rows
N_LISTED_ROWS = 5
MAX_SHOWN_COLUMNS = 6  # maximum number of columns in the table that is shown for a dot
# maximum bytes of row data embedded in a page, so that the whole page has at most about 300 kB
MAX_ROW_DATA_BYTES = 150_000
SHOWN_ROW_BYTES = 250  # bytes per row in the figure, including its list of influential rows
MIN_SHOWN_ROWS = 10  # minimum number of rows that the reader can choose in a plot
MAX_CELL_CHARACTERS = 20  # maximum number of characters of a word in a table
# number of groups of rows with similar probability, and minimum number of rows in each group
N_CALIBRATION_BINS, MIN_CALIBRATION_BIN_ROWS = 10, 10
# fractions of the rows that are fitted to show whether more rows would help
LEARNING_CURVE_FRACTIONS = (1 / 8, 1 / 4, 1 / 2)
MIN_FIT_ROWS = 10  # minimum number of rows of a fit
# fraction of the rows that is fitted to record the loss of the other rows in each iteration
FITTED_ROW_FRACTION = 2 / 3
MAX_CURVE_POINTS = 200  # maximum number of points of a loss curve
# maximum number of columns in a figure of slopes, if there is one output and if there are several
MAX_SLOPES, MAX_SLOPES_OF_CLASS = 12, 6
MAX_SLOPE_FIGURES = 3  # maximum number of classes for which slopes are drawn
N_STRONGEST_COLUMNS = 3  # number of columns named for each class if there are many classes
# maximum number of classes for which the whole confusion matrix is shown
MAX_CONFUSION_CLASSES = 12


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
    leads : list of (int, str)
        Sentences for the first screen, each with its rank: those of the lowest ranks are shown
        there, and the others in the section on trust.
    places : sequence of str
        Places of the rows in the user's table, such as "line 9", or empty.
    some : ndarray (M,) of int
        Indices of the rows that the figures show.
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
        self.leads: list[tuple[int, str]] = []
        self.some: Indices = np.arange(self.fit.n_rows)
        self.change: Any = None
        self.table: tuple[list[str], Any] = names, self.fit.X
        self.places: Sequence[str] = ()

    def place(self, row: int) -> str:
        """Return the place of a row in the user's table, such as "line 9". Return "row 7" for the
        row with the index 7 if the user passed arrays.
        """
        return self.places[row] if self.places else f"row {row}"

    def place_at_start(self, row: int) -> str:
        """Return the place of a row as the beginning of a sentence."""
        place = self.place(row)
        return place[0].upper() + place[1:]

    def record_call(self, name: str, value: Any, code: str, shown: str) -> tuple[str, str]:
        """Record the number `value` under `name`, with `code`, the Python code that returns this
        number. Return the pair (shown, code), where `shown` is the number as the report shows it.
        """
        self.facts[name] = to_json_value(value)
        self.calls.append({"name": name, "value": to_json_value(value), "call": code})
        return shown, code

    def add_lead(self, rank: int, sentence: str, calls: Sequence[tuple[str, str]] = ()) -> None:
        """Add a sentence for the first screen, with the calls that return its numbers."""
        self.leads.append((rank, sentence))
        self.report.first_screen.calls += calls

    @property
    def score_name(self) -> str:
        return "R\u00b2" if self.fit.numbers else "accuracy"

    @property
    def model_name(self) -> str:
        return "network" if len(self.fit.ob.model.sizes) > 2 else "linear model"

    def format_score(self, x: float, *others: float) -> str:
        """Format a score, with as many digits as it differs from `others`, at least two and at most
        four.
        """
        digits, others = 2, tuple(z for z in others if abs(z - x) > 1e-9)
        while digits < 4 and any(f"{x:.{digits}f}" == f"{z:.{digits}f}" for z in others):
            digits += 1
        # adding 0.0 turns -0.0 into 0.0
        if self.fit.numbers:
            return f"{round(x, digits) + 0.0:.{digits}f}"
        return f"{x:.{max(1, digits - 2)}%}"


def format_size(x: float, *others: float) -> str:
    """Format a number with as many significant digits as it differs from `others`, at least three
    and at most six, and without an exponent unless it has many zeros.
    """
    digits = 3
    while digits < 6 and any(f"{x:.{digits}g}" == f"{z:.{digits}g}" for z in others):
        digits += 1
    text = f"{x:#.{digits}g}".rstrip(".")
    return f"{float(text):.0f}" if "e+" in text and abs(x) < MAX_PLAIN_SIZE else text


def choose_shown_rows(page: FitPage) -> None:
    """Choose the rows that the figures show and set `page.some` to their indices. If leave-one-out
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
        page.some = np.sort(np.random.default_rng(seed).choice(fit.n_rows, most, replace=False))
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
    rows = row_cells(page, sample)[1]
    row_bytes = 8 + len(json.dumps(rows)) / len(sample)
    every = (MAX_ROW_DATA_BYTES - page.fit.n_rows * row_bytes) / SHOWN_ROW_BYTES
    # each dot may refer to rows that no other dot refers to
    own = MAX_ROW_DATA_BYTES / (SHOWN_ROW_BYTES + N_INFLUENTIAL_ROWS * row_bytes)
    return max(MIN_SHOWN_ROWS, int(max(every, own)))


# --------------------------------------------------------------------------------------------------
# The first screen: a picture of predictions of rows left out, and the score.


def add_score(page: FitPage) -> None:
    """Add the score of rows left out to the first screen, and its size in the unit of the
    target.
    """
    found, fit, report = page.found, page.fit, page.report
    n_rows = int(found.rows.sum())
    score, fitted = fit.score(found.left_out, found.rows), fit.score(fit.predictions())
    shown, shown_fitted = page.format_score(score, fitted), page.format_score(fitted, score)
    code = "out.score" if has_score_of_loss(fit) else "score(left_out, slice(None))"
    if not found.closed:
        code = "score(left_out[seen], seen)"
    calls = [
        page.record_call("left_out_score", score, code, shown),
        page.record_call("training_score", fitted, fit.fitted_score_code, shown_fitted),
    ]
    early = getattr(fit.est, "early_stopping", False)
    known = "all rows, some of which stopped the fit" if early else "the rows it was fitted to"
    of_rows = "" if n_rows == fit.n_rows else f" ({n_rows} of {fit.n_rows})"
    if fit.numbers:
        error = root_mean_square_error(fit, found.left_out, found.rows)
        code = "np.sqrt(np.nanmean((y - left_out) ** 2))"
        calls.append(page.record_call("typical_error", error, code, format_size(error)))
        sentence = (
            f"For rows that it has not seen{of_rows} the {page.model_name} has an R\u00b2 of "
            f"{shown} (1 is exact, 0 no better than the mean), with a typical error of "
            f"{format_size(error)} (root mean square). On {known} R\u00b2 is {shown_fitted}."
        )
    else:
        loss = float(fit.row_losses(found.left_out)[found.rows].mean())
        share = float(np.bincount(fit.y).max() / fit.n_rows)
        log_loss = (
            "out.losses.mean()"
            if found.closed
            else "-np.nanmean(np.log(np.maximum(left_out[np.arange(len(y)), codes], "
            f"{MIN_PROBABILITY!r})))"
        )
        most = "np.bincount(codes).max() / len(codes)"
        calls += [
            page.record_call("left_out_log_loss", loss, log_loss, f"{loss:.3f}"),
            page.record_call("most_frequent_class", share, most, page.format_score(share)),
        ]
        sentence = (
            f"Of rows that it has not seen{of_rows} the {page.model_name} classifies {shown} "
            f"correctly; the most frequent class would be right in {page.format_score(share)}. Of "
            f"{known} it classifies {shown_fitted} correctly."
        )
    page.facts["left_out_by"] = "rows" if found.closed else "folds"
    page.facts["left_out_rows"] = n_rows
    if found.closed:
        page.facts["folds_score"] = fit.score(found.folds, found.seen)
        page.facts["n_folds"] = found.n_folds
    report.first_screen.numbers.append((f"{page.score_name} on rows left out", shown))
    page.add_lead(10, sentence, calls)


def has_score_of_loss(fit: NetworkFit) -> bool:
    """Return True if the score on the page is that of `LeftOut.score`. This is so for
    classification, and for regression with the mse loss.
    """
    return not fit.numbers or fit.ob.loss == "mse"


def root_mean_square_error(fit: NetworkFit, left_out: Floats, rows: Any) -> float:
    return float(np.sqrt(fit.row_losses(left_out)[rows].mean()))


def add_interval_width(page: FitPage) -> None:
    """Add a sentence to the first screen: the distance from the prediction within which 95% of the
    targets of new rows lie.
    """
    found, fit = page.found, page.fit
    if has_jackknife_intervals(found):
        out = found.out
        assert out is not None
        low, high = out.interval(fit.ob.X[page.some], CONFIDENCE_LEVEL)
        widths = (high - low)[:, 0] / 2 * fit.scale
        found.setup.append(
            f"low, high = (b[:, 0] * {fit.scale_code} for b in out.interval(X[shown], "
            f"{CONFIDENCE_LEVEL}))"
        )
        code = "np.median(high - low) / 2"
    else:
        shown = page.some[found.rows[page.some]]
        errors = relative_errors(found)[found.rows]
        widths = conformal_width(errors, CONFIDENCE_LEVEL) * spread_at(
            found.spread, found.left_out[shown]
        )
        place = conformal_place(len(errors), CONFIDENCE_LEVEL)
        a, b, least = found.spread
        found.setup += [
            f"size = np.maximum({a!r} + {b!r} * left_out, {least!r})",
            "R = np.abs(y - left_out) / size",
        ]
        code = f"np.nanmedian(np.sort(R)[{place}] * size[shown])"
    width = float(np.median(widths))
    if not math.isfinite(width):
        n_rows = int(found.rows.sum())
        page.add_lead(30, f"{n_rows} rows are too few for intervals that hold 95% of new rows.")
        return
    shown_width = format_size(width)
    page.report.first_screen.numbers.append(
        ("interval that holds 95% of new rows", f"\u00b1\u2009{shown_width}")
    )
    sentence = f"95% of new rows are expected within {shown_width} of their prediction."
    if found.spread != CONSTANT_SPREAD:
        narrow, wide = map(format_size, np.percentile(widths, [5, 95]))
        small, large = ("low", "high") if found.spread[1] > 0 else ("high", "low")
        sentence = (
            f"95% of new rows are expected within {narrow} of their prediction where it is "
            f"{small}, and within {wide} where it is {large}, because errors are larger there. The "
            f"median of these distances is {shown_width}."
        )
    page.add_lead(30, sentence, [page.record_call("half_width", width, code, shown_width)])


def add_first_picture(page: FitPage) -> None:
    """Add the picture of the first screen: targets against predictions of rows left out, or how
    often classes are right and which are confused.
    """
    if page.fit.numbers:
        _add_predictions(page)
    else:
        _add_calibration(page)
        _add_confusion(page)


def _add_predictions(page: FitPage) -> None:
    found, fit, target = page.found, page.fit, page.target
    shown = page.some[found.rows[page.some]]
    low, high = _left_out_intervals(page, shown)
    inside = (low <= fit.y[shown]) & (fit.y[shown] <= high)
    share = float(inside.mean())
    x, y = found.left_out[shown], fit.y[shown]
    worst = np.argsort(-np.abs(y - x), kind="stable")[:N_LABELLED_ROWS].tolist()
    labels = [(i, page.place(int(shown[i]))) for i in worst]
    axes = f"{target} predicted without the row", target
    picture = draw_dots(x, y, *axes, low=low, high=high, labels=labels)
    dots = [
        (f"{page.place(int(row))}: {target} {t:.4g}, predicted {p:.4g}", "" if fits else "out")
        for row, t, p, fits in zip(shown, y, x, inside.tolist())
    ]
    drawn = (
        f" ({len(shown)} of {fit.n_rows}, drawn at random)" if len(shown) < found.rows.sum() else ""
    )
    page.report.add_figure(
        picture,
        f"Each dot is a row{drawn}: its {target}, and the prediction by a fit without the row. "
        f"Bars are 95% intervals, which hold {inside.sum()} of {len(shown)} rows; the others are "
        "red. The ten largest errors are labelled. On the dashed line predictions are exact.",
        dots=dots,
    )
    moved, scaled = "", not has_jackknife_intervals(found)
    if not scaled:
        change = "out.output_changes(X[[j]])[0, 0, i]"
        moved = f" + {change} * {fit.scale_code}"
        if fit.exponential:
            moved = f" * np.exp({change})"
    found.setup += [
        "def is_inside(j):",
        "    i = np.setdiff1d(np.flatnonzero(np.isfinite(left_out)), [j])",
        f"    k = int(np.ceil({CONFIDENCE_LEVEL} * (len(i) + 1))) - 1",
        "    return k >= len(i) or R[j] <= np.sort(R[i])[k]"
        if scaled
        else f"    R, middle = np.abs(y - left_out)[i], left_out[j]{moved}\n"
        "    return -np.sort(R - middle)[k] <= y[j] <= np.sort(middle + R)[k]",
    ]
    rows = "shown" if found.rows.all() else "shown[np.isfinite(left_out[shown])]"
    code = f"np.mean([is_inside(j) for j in {rows}])"
    page.report.add_calls([page.record_call("inside", share, code, f"{share:.1%}")])


def _left_out_intervals(page: FitPage, shown: Indices) -> tuple[Floats, Floats]:
    """Return the lower and upper ends of intervals for the rows `shown` of the fit. The interval of
    a row is computed without the error of that row: by jackknife+, or from the errors of the other
    rows, relative to their spread.
    """
    found, fit = page.found, page.fit
    jackknife = has_jackknife_intervals(found)
    errors = np.abs(fit.y - found.left_out) if jackknife else relative_errors(found)
    low, high = np.full(len(shown), -np.inf), np.full(len(shown), np.inf)
    at = {row: k for k, row in enumerate(page.some.tolist())}
    for k, row in enumerate(shown.tolist()):
        others = found.rows.copy()
        others[row] = False
        R = errors[others]
        place = conformal_place(len(R), CONFIDENCE_LEVEL)
        if place >= len(R):
            continue
        if not jackknife:
            prediction = found.left_out[row]
            width = float(np.partition(R, place)[place] * spread_at(found.spread, prediction))
            low[k], high[k] = prediction - width, prediction + width
            continue
        assert found.out is not None
        moved = found.out.predictions[row][:, None] + page.change[at[row]]
        middle = fit.outputs_to_predictions(moved.T)[others]
        high[k] = np.partition(middle + R, place)[place]
        low[k] = -np.partition(R - middle, place)[place]
    return low, high


def _add_calibration(page: FitPage) -> None:
    """Draw the fraction of correct predictions against the predicted probability, for groups of
    rows.
    """
    found, fit, report = page.found, page.fit, page.report
    rows = np.flatnonzero(found.rows)
    p, y = found.left_out[rows], fit.y[rows]
    sure, right = p.max(axis=1), p.argmax(axis=1) == y
    order = np.argsort(sure, kind="stable")
    groups = np.array_split(
        order, max(1, min(N_CALIBRATION_BINS, len(rows) // MIN_CALIBRATION_BIN_ROWS))
    )
    x = np.array([sure[g].mean() for g in groups])
    # Clopper-Pearson intervals of the shares
    n_rows = np.array([len(g) for g in groups])
    n_right = np.array([right[g].sum() for g in groups])
    n_wrong = n_rows - n_right
    low = np.where(n_right > 0, betaincinv(n_right, n_wrong + 1, 0.025), 0.0)
    high = np.where(n_wrong > 0, betaincinv(n_right + 1, n_wrong, 0.975), 1.0)
    axes = "probability of the predicted class", "share right"
    share = n_right / n_rows
    picture = draw_dots(x, share, *axes, low=low, high=high, height=3.1)
    dots = [
        (f"{len(g)} rows with probability {a:.0%} on average: {b:.0%} right", "")
        for g, a, b in zip(groups, x, share)
    ]
    report.add_figure(
        picture,
        f"Are the probabilities right? The rows are in {len(groups)} groups of similar probability "
        "of the class that a fit without the row predicts. Each dot is the share of a group for "
        "which this class is right, with its 95% interval. On the dashed line it equals the "
        "probability.",
        dots=dots,
    )
    mean, hit = float(sure.mean()), float(right.mean())
    code = "np.nanmean(left_out.max(axis=1))"
    off = "the probabilities are too " + ("high" if mean > hit else "low")
    spread = float(right.std() / math.sqrt(len(right)))
    judged = "these agree within two standard errors" if abs(mean - hit) <= 2 * spread else off
    page.add_lead(
        30,
        f"The class that it predicts has a probability of {mean:.1%} on average, and is right in "
        f"{hit:.1%}: {judged}.",
        [page.record_call("mean_probability", mean, code, f"{mean:.1%}")],
    )


def _add_confusion(page: FitPage) -> None:
    """Draw the confusion matrix of the left-out rows: for each class, the number of its rows that
    are predicted as each class. For many classes, list the pairs that are confused most.
    """
    found, fit, K = page.found, page.fit, len(page.fit.classes)
    rows, table = np.flatnonzero(found.rows), np.zeros((K, K), int)
    np.add.at(table, (fit.y[rows], found.left_out[rows].argmax(axis=1)), 1)
    page.facts["confusion"] = table.tolist()
    if K <= MAX_CONFUSION_CLASSES:
        page.report.add_figure(
            draw_confusion(table, fit.classes),
            "Which classes are confused? Numbers of rows, predicted by a fit without them; blue "
            "is right.",
        )
    else:
        off = table - np.diag(np.diag(table))
        most = np.argsort(-off, axis=None, kind="stable")[:N_LABELLED_ROWS]
        pairs = [np.unravel_index(i, off.shape) for i in most if off.flat[i]]
        page.report.add_table(
            ["class", "predicted as", "rows"],
            [[str(fit.classes[i]), str(fit.classes[j]), int(off[i, j])] for i, j in pairs],
        )
    first = int(table[0, 0])
    code = "np.sum((codes == 0) & (left_out.argmax(axis=1) == 0))"
    if not found.rows.all():
        code = "np.sum((codes == 0)[seen] & (left_out.argmax(axis=1) == 0)[seen])"
    page.report.add_calls([page.record_call("first_class_right", first, code, str(first))])


# --------------------------------------------------------------------------------------------------
# Can I trust it?


def add_trust(page: FitPage) -> None:
    """Add a section on where the predictions of rows left out come from, and what speaks against
    them.
    """
    found, fit, report = page.found, page.fit, page.report
    report.add_section("Can I trust it?")
    if found.closed:
        report.add_text(
            "The fit without a row is computed from the fit to all rows by one step of Newton's "
            f"method. For comparison, {page.score_name} is "
            f"{page.format_score(page.facts['folds_score'])} in {found.n_folds} of {N_SCORE_FOLDS} "
            f"folds (a tenth of the rows is left out, and a {page.model_name} fitted again to the "
            "others)."
        )
    else:
        which = "groups" if fit.groups is not None else "rows"
        report.add_text(
            f"The rows were left out in {found.n_folds} of {N_SCORE_FOLDS} folds (a tenth of the "
            f"{which} is left out, and a network fitted again to the others), because {found.why}."
        )
    report.add_text(
        "The score holds for new rows of the same kind: drawn as these were, from the same people, "
        "places or times. It says nothing about what happens if one changes a column on purpose."
    )
    if found.out is not None and not found.moved:
        _add_effective_parameters(page)
    add_worst_rows(page)


def _add_effective_parameters(page: FitPage) -> None:
    out, fit = page.found.out, page.fit
    assert out is not None
    effective, n = float(out.hat_matrix_diag.sum()), fit.ob.n_params
    page.facts["n_params"] = n
    # Losses that are not convex may give a number of effective parameters out of range.
    if not 0 <= effective <= n:
        return
    code = "out.hat_matrix_diag.sum()"
    ratio = fit.n_rows / effective if effective else math.inf
    page.report.add_text(
        f"The {page.model_name} has {n} parameters, which the weight decay (a penalty on large "
        f"weights) restricts. It has {effective:.3g} effective parameters: it follows its targets "
        "as closely as a linear fit without decay to that many columns. There are "
        f"{ratio:.3g} rows for each effective parameter."
    ).add_calls([page.record_call("effective_parameters", effective, code, f"{effective:.3g}")])


def add_worst_rows(page: FitPage) -> None:
    """Add a table of the rows that are predicted worst."""
    found, fit, report = page.found, page.fit, page.report
    losses = np.full(fit.n_rows, -1.0)
    losses[found.rows] = fit.row_losses_for_targets(fit.y[found.rows], found.left_out[found.rows])
    worst = np.argsort(-losses, kind="stable")[:N_LISTED_ROWS]
    page.facts["unexplained_rows"] = worst.tolist()
    name = "error" if fit.numbers else "probability of its class"
    _add_rows(
        page,
        worst,
        {name: [_left_out_error(fit, found, i) for i in worst]},
        "These rows are predicted worst. Check their targets; rare rows and noise look the same as "
        "wrong targets.",
    )
    i = int(worst[0])
    p = found.left_out[i] if fit.numbers else found.left_out[i, fit.y[i]]
    code = f"left_out[{i}]" if fit.numbers else f"left_out[{i}, codes[{i}]]"
    report.add_calls([page.record_call("worst_prediction", float(p), code, f"{p:.4g}")])


def _add_rows(page: FitPage, rows: Indices, more: dict[str, list[Any]], caption: str) -> None:
    """Add a table of some rows: their place, target, prediction, the values `more`, and cells."""
    names, cells = row_cells(page, rows)
    lines = [
        [line[0], line[1], _prediction_cell(page.fit, page.found, i), *extra, *line[2:]]
        for i, line, *extra in zip(rows, cells, *more.values())
    ]
    header = ["", page.target, "predicted without it", *more, *names]
    page.report.add_table(header, lines, caption)


def row_cells(page: FitPage, rows: Indices) -> tuple[list[str], list[list[Any]]]:
    """Return the names of the columns that are shown, and a list for each of the given rows: its
    place, its target and its values in these columns.
    """
    names, values = page.table
    columns = range(min(len(names), MAX_SHOWN_COLUMNS))
    lines = [
        [
            page.place(row),
            _target_cell(page.fit, row),
            *(_format_cell(values[row][c]) for c in columns),
        ]
        for row in rows.tolist()
    ]
    return [names[c] for c in columns], lines


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


def _target_cell(fit: NetworkFit, i: int) -> Any:
    return _format_cell(float(fit.y[i])) if fit.numbers else str(fit.classes[fit.y[i]])


def _prediction_cell(fit: NetworkFit, found: FitMeasurements, i: int) -> Any:
    p = found.left_out[i]
    if not np.isfinite(p).all():
        return "not left out"
    return _format_cell(float(p)) if fit.numbers else f"{fit.classes[p.argmax()]} ({p.max():.0%})"


def _left_out_error(fit: NetworkFit, found: FitMeasurements, i: int) -> Any:
    p = found.left_out[i]
    return _format_cell(float(fit.y[i] - p) if fit.numbers else float(p[fit.y[i]]))


# --------------------------------------------------------------------------------------------------
# Is a network needed?


def add_decay(page: FitPage) -> None:
    """Add a figure of the score of rows left out with other penalties to the report, and a sentence
    to the first screen if one of them predicts better.
    """
    found, fit, report = page.found, page.fit, page.report
    if len(found.decays) < 2:
        return
    ratios = sorted(found.decays)
    alphas = [ratio * fit.alpha for ratio in ratios]
    y = fit.y[found.decay_rows]
    scores = [fit.score_for_targets(y, found.decays[ratio]) for ratio in ratios]
    page.facts["decay"] = {"ratio": ratios, "score": scores}
    best = better_decay(found)
    report.add_figure(
        draw_lines(
            {"score": (alphas, scores, None)}, "weight decay, alpha",
            f"{page.score_name} on rows left out", logx=True,
        ),
        f"The same network with other weight decays, a larger one for a simpler network, in "
        f"{len(found.decay_rows)} rows left out. That of this page is alpha = {fit.alpha:.3g}.",
    )  # fmt: skip
    if best is not None:
        sizes = [float(decay_losses(found, ratio).mean()) for ratio in (best, 1.0)]
        what = "log loss"
        if fit.numbers:
            what, sizes = "typical error", [math.sqrt(size) for size in sizes]
        page.add_lead(
            25,
            f"With {best:.2g} times the weight decay, alpha = {best * fit.alpha:.3g}, it predicts "
            f"better: a {what} of {format_size(*sizes)} instead of "
            f"{format_size(*sizes[::-1])} in {len(y)} rows left out. Use that.",
        )


def add_comparison(page: FitPage) -> None:
    """Add a comparison of the network with a linear model, by the losses of rows left out, to the
    first screen.
    """
    found, fit = page.found, page.fit
    network = found.rival or found
    if network.linear is None:
        return
    gain, error = loss_difference(network)
    own, score = network.fit.score(network.left_out, network.rows), network.linear.score
    useful = beats_constant_prediction(network, network.left_out)
    if not useful and not beats_constant_prediction(network, network.linear.left_out):
        constant = "the mean of the targets" if fit.numbers else "the shares of the classes"
        then = f"Neither predicts better than {constant}: the network is not needed here"
    elif gain > 2 * error:
        then = "The network is better, by more than two standard errors of the difference"
    elif gain < 0:
        then = "The network is not needed here: the linear model is better"
    else:
        then = (
            "The rows do not show that a network is needed: it is better by less than two standard "
            "errors of the difference"
        )
    page.facts["network_needed"] = useful and gain > 2 * error
    page.facts["loss_difference"], page.facts["loss_difference_error"] = gain, error
    losses = network.linear.left_out, network.left_out
    if fit.numbers:
        size = "typical error"
        line_size, own_size = (root_mean_square_error(fit, p, network.rows) for p in losses)
    else:
        size = "log loss (minus the logarithm of the probability of the true class)"
        line_size, own_size = (float(fit.row_losses(p)[network.rows].mean()) for p in losses)
    calls = _comparison_calls(page, score, own, gain) if network is found else []
    if network is not found:
        page.facts["network_score"] = own
        page.facts["linear_score"] = score
    if found.rival is None:
        other, shown = "A linear model", page.format_score(score, own)
        sizes = format_size(line_size, own_size), format_size(own_size, line_size)
        against, than = "linear model", "the network"
    else:
        other, shown = "A network", page.format_score(own, score)
        sizes = format_size(own_size, line_size), format_size(line_size, own_size)
        against, than = "network", "the linear model"
        then += ", and is the fit of this page (`--network` keeps the network)"
    is_score = f"has an R\u00b2 of {shown}" if fit.numbers else f"is right in {shown}"
    sentence = (
        f"{other} {is_score}, with a {size} of {sizes[0]}, where {than} has {sizes[1]}. {then}."
    )
    own_of_page, of_other = (own_size, line_size) if found.rival is None else (line_size, own_size)
    change = (
        f"{(own_of_page - of_other) / of_other:+.1%}".replace("-", "\u2212") if of_other else ""
    )
    if change:
        name = "typical error" if fit.numbers else "log loss"
        page.report.first_screen.numbers.append((f"{name} relative to a {against}", change))
    page.add_lead(20, sentence, calls)


def _comparison_calls(page: FitPage, score: float, own: float, gain: float) -> list[Any]:
    """Return the calls that return the numbers of a linear model."""
    fit, found = page.fit, page.found
    line = fit.predictions_code("line.predictions")
    code = "line.score" if has_score_of_loss(fit) else f"score({line}, slice(None))"
    calls = [page.record_call("linear_score", score, code, page.format_score(score, own))]
    if not fit.numbers:
        loss = float(found.linear.out.losses.mean())
        calls.append(page.record_call("linear_log_loss", loss, "line.losses.mean()", f"{loss:.3f}"))
    if found.closed:
        code = "np.mean(line.losses - out.losses)"
        if fit.numbers:
            code = f"np.mean((y - ({line})) ** 2 - (y - left_out) ** 2)"
        calls.append(page.record_call("loss_difference", gain, code, f"{gain:.3g}"))
    return calls


def add_rival(page: FitPage) -> None:
    """Add a section to the report on the network, if the fit is a linear model that is better."""
    network = page.found.rival
    if network is None:
        return
    fit, point = network.fit, network.point
    assert point is not None
    page.report.add_section("The network that was not chosen")
    sizes = ", ".join(map(str, fit.ob.model.sizes))
    rows = [
        ("units of each layer", sizes),
        (f"{page.score_name} on rows left out", f"{page.facts['network_score']:.4g}"),
        (f"{page.score_name} on the rows fitted", f"{fit.score(fit.predictions()):.4g}"),
        ("parameters", str(fit.ob.n_params)),
        ("weight decay, alpha", f"{fit.alpha:.3g}"),
        ("where its training stopped", point.kind.replace("_", " ")),
    ]
    if network.out is not None:
        rows.insert(4, ("effective parameters", f"{float(network.out.hat_matrix_diag.sum()):.3g}"))
    page.report.add_text(
        "A network with hidden units can follow curves and interactions of columns. Here the rows "
        "left out do not reward that: either the law is nearly linear, or the rows are too few to "
        "show more."
    ).add_table(["", ""], rows)


def add_learning_curve(page: FitPage) -> None:
    """Add a section to the report with the score on held-out rows against the number of fitted
    rows, for the network and for a linear model.
    """
    found, fit = page.found, page.fit
    page.report.add_section("Would another fit predict better?")
    drawn = np.random.default_rng(page.seed).permutation(fit.n_rows)
    found.setup.append(f"drawn = np.random.default_rng({page.seed}).permutation(len(X))")
    sizes, scores, errors, linear = [], [], [], []
    for share in LEARNING_CURVE_FRACTIONS:
        m = int(fit.n_rows * share)
        if m < MIN_FIT_ROWS or fit.groups is not None or not found.has_time_for(share):
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
    sizes.append(fit.n_rows if found.closed else int(fit.n_rows * (1 - 1 / N_SCORE_FOLDS)))
    scores.append(fit.score(found.left_out, found.rows))
    errors.append(fit.score_error(fit.y[found.rows], found.left_out[found.rows]))
    page.facts["rows_curve"] = {"rows": sizes, "score": scores, "standard_error": errors}
    page.facts["rows_curve"]["linear"] = linear
    lines: dict[str, Any] = {page.model_name: (sizes, scores, errors)}
    if found.linear is not None and len(linear) == len(sizes) - 1 and page.model_name == "network":
        lines["linear model"] = (sizes, [*linear, found.linear.score], None)
    if len(sizes) > 1:
        page.report.add_figure(
            draw_lines(lines, "rows fitted", f"{page.score_name} on rows left out", logx=True),
            "Fits to some of the rows, drawn at random, and their score on all others; at the "
            "right the fit of this page. The band is one standard error.",
        )
        _add_row_comparison(page, sizes, scores, errors)
    add_decay(page)


def _add_row_comparison(
    page: FitPage, sizes: list[int], scores: list[float], errors: list[float]
) -> None:
    """Add a sentence to the first screen on the improvement by more rows, from the scores and
    standard errors of fits to growing numbers of rows, `sizes`.
    """
    m, gain = sizes[-2], scores[-1] - scores[-2]
    error = math.hypot(errors[-1], errors[-2])
    clear = abs(gain) > 2 * error
    then = (
        "More rows of the same kind are likely to help."
        if clear and gain > 0
        else "That does not show that more rows would help."
    )
    shown = page.format_score(scores[-2], scores[-1])
    sentence = (
        f"Fitted to {m} rows {page.score_name} is {shown}, to {sizes[-1]} rows "
        f"{page.format_score(scores[-1], scores[-2])}: a difference of "
        + ("more" if clear else "less")
        + f" than two standard errors. {then}"
    )
    code = f"score(again(drawn[:{m}], drawn[{m}:]), drawn[{m}:])"
    page.report.add_text(sentence)
    page.report.add_calls([page.record_call("score_of_fewer_rows", scores[-2], code, shown)])
    if clear and gain > 0:
        page.leads.append((50, sentence))


# --------------------------------------------------------------------------------------------------
# Which inputs matter, and how?


def add_slopes(page: FitPage) -> None:
    """Add a section to the report on the slopes of predictions with respect to each column of X:
    the median over the rows and the range from 5% to 95%.
    """
    fit, report, rows = page.fit, page.report, page.some
    report.add_section("Which inputs matter, and how?")
    J = fit.prediction_slopes(rows) * fit.X.std(axis=0)  # shape (M, outputs, k)
    code = f"({fit.slopes_code} * X.std(axis=0))"
    if J.shape[1] > 1:
        J = J - J.mean(axis=1, keepdims=True)
        code = f"({code} - {code}.mean(axis=1, keepdims=True))"
    low, middle, high = np.percentile(J, [5, 50, 95], axis=0)
    n_outputs = J.shape[1]
    what = page.target if fit.numbers else "the log-odds"
    if not fit.numbers and n_outputs == 1:
        what += f" of {fit.classes[1]}"
    elif not fit.numbers:
        what = "the logarithm of the probability of a class, relative to the mean of all classes,"
    size = np.abs(J).mean(axis=(0, 1))
    shown = np.argsort(-size, kind="stable")[
        : MAX_SLOPES if n_outputs == 1 else MAX_SLOPES_OF_CLASS
    ]
    if n_outputs <= MAX_SLOPE_FIGURES:
        titles = [""] if n_outputs == 1 else [f"to {name}" for name in map(str, fit.classes)]
        ranges = {
            title: np.array([low[c, shown], middle[c, shown], high[c, shown]])
            for c, title in enumerate(titles)
        }
        unit = page.target if fit.numbers else "log-odds"
        report.add_figure(
            draw_ranges([page.names[j] for j in shown], ranges, f"change of {unit}"),
            f"How much {what} changes for one standard deviation more of a column, with the other "
            "columns held fixed: the median over the rows (dot), and the range of 90% of them "
            "(bar). A bar on both sides of 0: the column acts differently in different rows.",
        )
    else:
        _add_strongest_slopes(page, middle)
    if len(size) > len(shown):
        report.add_text(
            f"Shown are the {len(shown)} of {len(size)} inputs with the largest slopes."
        )
    report.add_text(
        "These are slopes of the fit, not effects in the world: changing a column on purpose may "
        "do something else, and correlated columns share one effect."
    )
    first = int(np.abs(J[:, 0]).mean(axis=0).argmax())
    value = float(middle[0, first])
    call = f"np.median({code}[:, 0, {first}])"
    page.facts["slopes"] = to_json_value(middle)
    report.add_calls(
        [page.record_call("slope", value, call, f"{value:.3g}, for {page.names[first]},")]
    )


def _add_strongest_slopes(page: FitPage, middle: Floats) -> None:
    """Add a table to the report of the columns of X with the largest effects for and against each
    of many classes, from the median slopes `middle` (classes, k).
    """

    def names(slopes: Floats) -> str:
        """Return the names of the columns with the largest slopes above 0."""
        order = np.argsort(-slopes, kind="stable")[:N_STRONGEST_COLUMNS]
        return ", ".join(page.names[i] for i in order.tolist() if slopes[i] > 0) or "none"

    page.report.add_table(
        ["class", "more of these speaks for it", "against it"],
        [[str(name), names(s), names(-s)] for name, s in zip(page.fit.classes, middle)],
    )


# --------------------------------------------------------------------------------------------------
# Which rows decide?


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


def add_influence(page: FitPage) -> None:
    """Add a section to the report with a figure in which the reader chooses a row and sees the rows
    of the fit whose removal changes the prediction of the chosen row most, and a table of the rows
    that move the fit most.
    """
    found, fit, target, some = page.found, page.fit, page.target, page.some
    report = page.report.add_section("Which rows decide a prediction?")
    if found.out is None:
        report.add_text(f"This is not known here, because {found.why}.")
        return
    effects = _row_removal_effects(page)
    others = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, :N_INFLUENTIAL_ROWS]
    picked = np.take_along_axis(effects, others, 1)
    z = fit.outputs_to_predictions(found.ob.model.predict(found.theta, fit.ob.X[some]))
    cook = found.out.cooks_distance
    if fit.numbers:
        what, axes = "prediction", (f"{target} predicted", target)
        x, y = z, fit.y[some]
        titles = [
            f"{page.place(int(i))}: predicted {p:.4g}, {target} {t:.4g}"
            for i, p, t in zip(some, x, y)
        ]
    else:
        what = "probability of the predicted class"
        axes = (what, "how far it moves the fit (Cook\u2019s distance)")
        own = z.argmax(axis=1)
        x, y = z[np.arange(len(z)), own], np.nan_to_num(cook[some])
        titles = [
            f"{page.place(int(i))}: predicted {fit.classes[c]} with probability {p:.3f}, {target} "
            f"{fit.classes[t]}"
            for i, c, p, t in zip(some, own, x, fit.y[some])
        ]
    rows = np.unique(others)
    names, cells = row_cells(page, rows)
    first = int(np.argmax(np.nan_to_num(cook[some])))
    choice = {
        "rows": some.tolist(),
        "others": others.tolist(),
        "effects": [[float(f"{v:.3g}") for v in line] for line in picked.tolist()],
        "cells": dict(zip(rows.tolist(), cells)),
        "header": ["", "without it", target, *names],
        "sentence": f"The rows whose removal changes its {what} most:",
        "chosen": first,
    }
    report.add_figure(
        draw_dots(x, y, *axes, diagonal=fit.numbers, height=3.6),
        f"Choose a dot by a click or with the arrow keys. The {others.shape[1]} rows whose removal "
        f"moves its {what} most are marked, orange if it is higher without them and green if it is "
        "lower.",
        dots=[(title, "") for title in titles],
        choice=choice,
    )
    if not found.closed:
        report.add_text(
            "Rows are removed at this minimum; a fit from a new start may end in another."
        )
    _add_row_that_moves_most(page, effects)


def _add_row_that_moves_most(page: FitPage, effects: Floats) -> None:
    """Add a sentence to the report on how much predictions change without the row that moves the
    fit most, and a table of the rows that do.
    """
    found, fit = page.found, page.fit
    assert found.out is not None
    cook, hat = found.out.cooks_distance, found.out.hat_matrix_diag
    rows = np.argsort(-np.nan_to_num(cook), kind="stable")[:N_LISTED_ROWS]
    page.facts["influential_rows"] = rows.tolist()
    row = int(rows[0])
    moved = effects[:, row]
    most, mean = float(np.abs(moved).max()), float(np.sqrt(np.mean(moved**2)))
    what = "predictions" if fit.numbers else "probabilities of the predicted classes"
    page.report.add_text(
        f"{page.place_at_start(row)} moves the fit most. Without it {what} change by at most "
        f"{format_number(most)}, and by {format_number(mean)} in root mean square."
    )
    columns = {"Cook\u2019s distance": cook[rows], "leverage": hat[rows]}
    _add_rows(
        page,
        rows,
        {column: [_format_cell(x) for x in values] for column, values in columns.items()},
        "Rows that move the fit most, by Cook\u2019s distance: how far the whole fit moves without "
        "the row. The leverage is how much the row\u2019s own target determines its prediction; "
        "the leverages of all rows sum to the effective parameters.",
    )
    calls = [
        page.record_call("cooks_distance", float(cook[row]), f"out.cooks_distance[{row}]",
                         format_number(float(cook[row]))),
        page.record_call("leverage", float(hat[row]), f"out.hat_matrix_diag[{row}]",
                         format_number(float(hat[row]))),
    ]  # fmt: skip
    if fit.numbers and not fit.exponential:
        change = f"out.output_changes(X[shown])[:, 0, {row}] * {fit.scale_code}"
        code = f"np.abs({change}).max()"
        calls.append(page.record_call("change_without_row", most, code, format_number(most)))
        code = f"np.sqrt(np.mean(np.square({change})))"
        calls.append(page.record_call("mean_change_without_row", mean, code, format_number(mean)))
    page.report.add_calls(calls)


# --------------------------------------------------------------------------------------------------
# Where not to believe it.


def add_domain(page: FitPage) -> None:
    """Add a section to the report on the rows that are extrapolations: a figure of the error of
    each row left out against its leverage without itself, with the limit of the domain.
    """
    found, fit, some = page.found, page.fit, page.some
    if found.out is None or fit.ob.loss not in LOSSES_OF_KNOWN_INFORMATION:
        return
    try:
        post = laplace_posterior(found.ob, found.theta)
        leverage, limit = post.left_out_leverages(), post.leverage_limit
    except ValueError:
        return
    shown = some[(found.rows & np.isfinite(leverage) & (leverage > 0))[some]]
    if not math.isfinite(limit) or len(shown) < MIN_SHOWN_ROWS:
        return
    p = found.left_out
    error = np.abs(fit.y - p) if fit.numbers else 1 - p[np.arange(fit.n_rows), fit.y]
    what = "error" if fit.numbers else "probability of the wrong classes"
    outside = leverage > limit
    furthest = shown[np.argsort(-leverage[shown], kind="stable")[:N_LISTED_ROWS]]
    shown = np.union1d(shown[:: -(-len(shown) // MAX_DOMAIN_ROWS)], furthest)
    far = np.flatnonzero(np.isin(shown, furthest)).tolist()
    page.facts["leverage_limit"] = limit
    page.report.add_section("Which rows are extrapolations?")
    picture = draw_dots(
        leverage[shown], error[shown], "leverage without the row", f"{what} of the row left out",
        labels=[(i, page.place(int(shown[i]))) for i in far], diagonal=False, limit=limit,
        height=3.2,
    )  # fmt: skip
    dots = [
        (f"{page.place(int(i))}: leverage {leverage[i]:.3g}, {what} {error[i]:.3g}",
         "out" if outside[i] else "")
        for i in shown
    ]  # fmt: skip
    page.report.add_figure(
        picture,
        "Rows far to the right are unlike the others. Right of the red line, which 5% of rows of "
        "the same kind exceed, a prediction is an extrapolation. The rows furthest out are "
        "labelled.",
        dots=dots,
    )
    page.report.add_text(
        "The leverage of a new row is the variance of its prediction, in units of the variance of "
        f"one new target. Above {limit:.3g} the row is unlike the known rows, and the scores on "
        "this page may not hold for it. The limit does not detect a row in a gap between known "
        "rows, or a relation between columns and target that has changed."
    )
    inner, outer = (error[rows & found.rows] for rows in (~outside, outside))
    if fit.numbers and len(outer):
        sizes = [float(np.sqrt(np.mean(part**2))) for part in (outer, inner)]
        page.report.add_text(
            f"{len(outer)} of the {fit.n_rows} rows lie beyond the limit; left out, they have a "
            f"typical error of {format_size(sizes[0])}, and the others of {format_size(sizes[1])}."
        )
    names, values = page.table
    columns = [np.asarray([x for x in values[:, j] if isinstance(x, float) and math.isfinite(x)])
               for j in range(min(len(names), MAX_SLOPES))]  # fmt: skip
    ranges = [
        [name, float(column.min()), float(column.max())]
        for name, column in zip(names, columns)
        if len(column)
    ]
    if ranges:
        page.report.add_table(
            ["column", "lowest", "highest"],
            ranges,
            "The range of the known rows. A row within all ranges can still be an unusual "
            "combination.",
        )


# --------------------------------------------------------------------------------------------------
# The curvature.


def add_curvature(page: FitPage) -> None:
    """Add a section to the report with the verdict and the ends of the spectrum. Then fit the
    network to some of the rows, and draw the loss of the other rows during this fit.
    """
    found, fit, report, point = page.found, page.fit, page.report, page.found.point
    assert point is not None
    page.facts |= {"kind": point.kind, "certified": bool(point.certified)}
    report.add_section("Where training stopped").add_verdict_sentence(point)
    if found.n_inactive:
        report.add_text(
            "The verdict is on the network without the units whose weights are all 0: "
            f"{found.n_inactive} of {sum(fit.ob.model.sizes[1:-1])}."
        )
    report.add_text(
        "Here theta is the vector of all weights. The eigenvalues of the Hessian (the curvatures "
        f"of the loss) range from {format_number(point.lambda_min)} to "
        f"{format_number(point.lambda_max)}."
    ).add_calls(
        [
            page.record_call("verdict", point.sentence, "point.sentence", point.sentence),
            page.record_call("lambda_min", point.lambda_min, "point.lambda_min",
                             format_number(point.lambda_min)),
            page.record_call("lambda_max", point.lambda_max, "point.lambda_max",
                             format_number(point.lambda_max)),
        ]
    )  # fmt: skip
    if found.moved:
        kind = point.kind.replace("_", " ")
        page.add_lead(
            15,
            f"The fit has not converged: further training leads to another point ({kind}) with "
            "other predictions. Increase max_iter.",
        )
    drawn = np.random.default_rng(page.seed).permutation(fit.n_rows)
    m = int(fit.n_rows * FITTED_ROW_FRACTION)
    most, fewer = drawn[:m], drawn[m:]
    if len(most) < MIN_FIT_ROWS or not found.has_time_for(1.0):
        return
    losses, held = fit.fit_loss_curves(most, fewer)
    steps = np.arange(len(held))
    every = max(1, len(steps) // MAX_CURVE_POINTS)
    at = np.unique(np.r_[steps[::every], steps[-1]])
    positive = min(np.min(losses), np.min(held)) > 0
    report.add_figure(
        draw_lines(
            {"rows fitted, with the penalty": (at, np.asarray(losses)[at], None),
             "other rows": (at, np.asarray(held)[at], None)},
            "iteration", "loss", logy=positive, markers=False,
        ),
        f"The loss of {len(most)} rows in a fit to them, and that of the {len(fewer)} others.",
    )  # fmt: skip
    best, end = int(np.argmin(held)), float(held[-1])
    lowest = float(held[best])
    report.add_text(
        f"The lowest loss of the other rows is {lowest:.4g}, after {best} of {steps[-1]} "
        f"iterations; at the end it is {end:.4g}."
    )
    found.setup += [f"most, fewer = drawn[:{m}], drawn[{m}:]", fit.watched_fit_code]
    report.add_calls(
        [
            page.record_call("lowest_iteration", best, "np.argmin(curve)", str(best)),
            page.record_call("lowest_held_out_loss", lowest, "min(curve)", f"{lowest:.4g}"),
            page.record_call("last_held_out_loss", end, "curve[-1]", f"{end:.4g}"),
        ]
    )

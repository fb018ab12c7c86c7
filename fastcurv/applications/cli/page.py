"""The page on a fit: scores of rows that were not fitted, intervals of predictions, influential
rows and inputs, the domain, and the point where training stopped.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import numpy as np

from ...common.checks import check_rng, integer_seed, is_iterable, is_sparse
from ...common.errors import one_line, type_phrase
from ...common.protocols import Floats, Indices
from ...common.runtime import serial_blas_context, show_versions
from ...spectrum.results import format_number, to_json_value
from ..uncertainty.laplace import LOSSES_OF_KNOWN_INFORMATION, laplace_posterior
from .measure import (
    CONFIDENCE_LEVEL,
    CONSTANT_SPREAD,
    MAX_REMOVAL_EFFECT_FLOPS,
    N_SCORE_FOLDS,
    Fit,
    FitMeasurements,
    beats_constant_prediction,
    conformal_width,
    fit_of,
    loss_difference,
    measure_fit,
    relative_errors,
    spread_at,
    suppress_warnings,
)
from .network import SavedNetwork
from .pictures import draw_confusion, draw_dots, draw_ranges
from .report import Report, check_report_packages, paragraph

MAX_NAME_CHARACTERS = 40  # maximum length of column names on the page; longer names are cut
# maximum number of entries of a sparse X that is converted to a dense array
MAX_PAGE_DENSE_ENTRIES = 20_000_000
MAX_PLAIN_SIZE = 1e8  # numbers below this size are written without an exponent
MAX_LEADS = 5  # maximum number of sentences on the first screen
MAX_SHOWN_ROWS = 500  # maximum number of rows that a figure shows
MAX_DOMAIN_ROWS = 200  # maximum number of rows in the figure of the domain
N_LABELLED_ROWS = 10  # number of rows with the largest errors that are labelled
N_LISTED_ROWS = 5  # number of rows in the tables of influential rows
MAX_SHOWN_COLUMNS = 6  # maximum number of columns in the table that is shown for a dot
MIN_SHOWN_ROWS = 10  # minimum number of rows in a figure
MAX_CELL_CHARACTERS = 20  # maximum number of characters of a word in a table
# maximum number of columns in a figure of slopes, if there is one output and if there are several
MAX_SLOPES, MAX_SLOPES_OF_CLASS = 12, 6
MAX_SLOPE_FIGURES = 3  # maximum number of classes for which slopes are drawn
N_STRONGEST_COLUMNS = 3  # number of columns named for each class if there are many classes
MAX_CONFUSION_CLASSES = 12  # maximum number of classes in the confusion matrix


class FitPage:
    """The state of the page on a fitted network while it is built.

    Attributes
    ----------
    report : Report
        The page so far.
    facts : dict
        The numbers of the page by name.
    leads : list of (int, str)
        Sentences for the first screen, each with its rank: those of the lowest ranks are shown
        there, and the others in the section on trust.
    table : (list of str, ndarray (N, K))
        The names and the cells of the columns of the user's table.
    places : sequence of str
        Places of the rows in the user's table, such as "line 9", or empty.
    some : ndarray (M,) of int
        Indices of the rows that the figures show.
    """

    def __init__(
        self, report: Report, found: FitMeasurements, names: list[str], target: str, seed: int
    ) -> None:
        self.report, self.found, self.names, self.target = report, found, names, target
        self.fit = found.fit
        self.facts: dict[str, Any] = {}
        self.leads: list[tuple[int, str]] = []
        self.some: Indices = np.arange(self.fit.n_rows)
        self.seed = seed
        self.table: tuple[list[str], Any] = names, self.fit.X
        self.places: Sequence[str] = ()

    def place(self, row: int, start: bool = False) -> str:
        """Return the place of a row in the user's table, such as "line 9", or "row 7" for the row
        with the index 7 of arrays. If `start` is True, it begins a sentence.
        """
        place = self.places[row] if self.places else f"row {row}"
        return place[0].upper() + place[1:] if start else place

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


def build_page(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    names: Sequence[str] | None = None,
    target: str | None = None,
    notes: Sequence[str] = (),
    progress: Callable[[str], None] = lambda text: None,
    seed: int = 0,
    table: tuple[Sequence[str], Any, Sequence[str]] | None = None,
    n_columns: int | None = None,
    found: FitMeasurements | None = None,
    network: SavedNetwork | None = None,
    commands: Sequence[tuple[str, str]] = (),
    made: Sequence[tuple[str, str]] = (),
) -> Report:
    """Build the page on a fitted network.

    Parameters
    ----------
    estimator : MLPRegressor or MLPClassifier
        The estimator, fitted to X and y.
    X : array_like (N, k)
        The inputs to which the estimator was fitted.
    y : array_like (N,)
        The targets.
    names : sequence of str, optional
        Names of the columns of X.
    target : str, optional
        Name of y.
    notes : sequence of str
        Sentences on how the fit was made.
    progress : callable, optional
        Called with a few words before each step.
    seed : int
        Seed for the rows that are drawn for pictures.
    table : (sequence of str, array_like (N, K), sequence of str), optional
        Names and values of the columns of the user's table, for the rows that are shown, and the
        places of its rows, such as "line 9", or none; by default those of X.
    n_columns : int, optional
        The number of columns of `table` that the fit uses, by default that of X.
    found : FitMeasurements, optional
        The result of `measure_fit` for this fit, if it was computed before.
    network : SavedNetwork, optional
        The saved network of the fit, whose predictions, intervals and domain for the shown rows are
        numbers of the page.
    commands : sequence of (str, str)
        What a reader can do next, in a few words, and the command; by default calls in Python.
    made : sequence of (str, str)
        How the fit was made: names and values, shown above the settings of the fit.

    Raises
    ------
    ValueError
        If y has several targets, or if X and y are not the rows of the fit, have weights, or are
        fewer than 10.
    """
    if is_sparse(X):
        if X.shape[0] * X.shape[1] > MAX_PAGE_DENSE_ENTRIES:
            raise ValueError(
                f"X must have at most {MAX_PAGE_DENSE_ENTRIES} entries for a report, got "
                f"{X.shape}. Use fewer columns."
            )
        X = X.toarray()
    X = np.asarray(X)
    check_report_packages()
    columns = [f"x{i}" for i in range(X.shape[1])] if names is None else _shorten_names(names)
    _check_names(columns, X)
    target = one_line(target or "y", MAX_NAME_CHARACTERS)
    with serial_blas_context():  # The matrices are small, and waiting threads take processor time.
        if found is None:
            found = measure_fit(fit_of(estimator, X, y), progress)
        page = FitPage(Report(f"{target}: how far can the predictions be trusted?"), found, columns,
                       target, seed)  # fmt: skip
        if table is not None:
            page.table = _shorten_names(table[0]), np.asarray(table[1], dtype=object)
            page.places = table[2]
        progress("pictures")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            choose_shown_rows(page)
            _describe_rows(page, n_columns or X.shape[1])
            add_score(page)
            add_comparison(page)
            if page.fit.numbers:
                add_interval_width(page)
        doubts = [str(w.message) for w in caught if w.category is UserWarning]
        with suppress_warnings():  # of matplotlib
            (_add_predictions if page.fit.numbers else _add_confusion)(page)
            add_trust(page)
            trust = page.report.sections[-1]
            add_slopes(page)
            add_influence(page)
            add_domain(page)
            add_verdict(page)
            _add_next_steps(page, commands)
            _add_making(page, notes, made)
    page.facts["warnings"] = list(dict.fromkeys((*found.doubts, *doubts)))
    leads = [sentence for _, sentence in sorted(page.leads, key=lambda lead: lead[0])]
    leads += page.facts["warnings"]
    page.report.first_screen.leads += leads[:MAX_LEADS]
    page.facts["first_screen"] = leads[:MAX_LEADS]
    for sentence in leads[MAX_LEADS:]:
        trust.words.insert(0, paragraph(sentence))
    if network is not None:
        _add_predictions_of_network(page, network, y)
    page.report.facts = to_json_value(page.facts)
    return page.report


def _add_predictions_of_network(page: FitPage, network: SavedNetwork, y: Any) -> None:
    """Add the results of `fastcurv predict` for the shown rows to the numbers of the page."""
    X, some = page.fit.X, page.some
    predictions = network.predictions(X)
    page.facts |= {"shown_rows": some, "predictions": predictions[some]}
    if page.fit.numbers:
        low, high = network.interval(predictions, CONFIDENCE_LEVEL)
        page.facts |= {"lower": low[some], "upper": high[some]}
    if len(network.minimum):
        page.facts["in_domain"] = network.in_domain(X, X, np.asarray(y))[some]


def _shorten_names(names: Sequence[str]) -> list[str]:
    return [one_line(name, MAX_NAME_CHARACTERS) for name in names]


def _check_names(names: Sequence[str], X: Any) -> None:
    if not is_iterable(names) or len(names) != np.shape(X)[1]:
        raise ValueError(
            f"names must hold a name for each of {np.shape(X)[1]} columns of X, got "
            f"{one_line(names, 200)}."
        )


def _describe_rows(page: FitPage, n_columns: int) -> None:
    """Add the numbers of rows, columns and inputs below the title. `n_columns` is the number of
    columns that the fit uses.
    """
    n_rows, n_inputs = page.fit.X.shape
    page.facts |= {"n_rows": n_rows, "n_columns": n_columns, "n_inputs": n_inputs}
    page.facts["sizes"] = list(page.fit.ob.model.sizes)
    sentence = f"{n_rows} rows, {n_columns} column{'s' * (n_columns > 1)}"
    if n_columns != n_inputs:
        sentence += f" as {n_inputs} inputs"
    _, *hidden, _ = page.fit.ob.model.sizes
    units = " and ".join(map(str, hidden))
    kind = f"a network with {units} hidden units" if hidden else "a linear model"
    page.report.subtitle = f"{sentence}; {kind}."


def choose_shown_rows(page: FitPage) -> None:
    """Set `page.some` to the indices of the rows that the figures show: fewer for a fit without
    which the removal of a row takes long to compute.
    """
    found, fit, most = page.found, page.fit, MAX_SHOWN_ROWS
    if found.out is not None:
        flops = 2.0 * fit.n_rows * fit.ob.n_params
        most = min(most, max(MIN_SHOWN_ROWS, int(MAX_REMOVAL_EFFECT_FLOPS / flops)))
    if fit.n_rows > most:
        drawn = np.random.default_rng(page.seed).choice(fit.n_rows, most, replace=False)
        page.some = np.sort(drawn)


# --------------------------------------------------------------------------------------------------
# The first screen: a picture of predictions of rows left out, and the score.


def add_score(page: FitPage) -> None:
    """Add the score of rows left out to the first screen, and its size in the unit of the
    target.
    """
    found, fit, facts = page.found, page.fit, page.facts
    n_rows = int(found.rows.sum())
    score, fitted = fit.score(found.left_out, found.rows), fit.score(fit.predictions())
    shown, shown_fitted = page.format_score(score, fitted), page.format_score(fitted, score)
    facts |= {"left_out_score": score, "training_score": fitted, "left_out_rows": n_rows}
    facts["left_out_by"] = "rows" if found.closed else "folds"
    facts |= {"folds_score": fit.score(found.folds, found.seen), "n_folds": found.n_folds}
    early = getattr(fit.est, "early_stopping", False)
    known = "all rows, some of which stopped the fit" if early else "the rows it was fitted to"
    of_rows = "" if n_rows == fit.n_rows else f" ({n_rows} of {fit.n_rows})"
    if fit.numbers:
        error = facts["typical_error"] = root_mean_square_error(fit, found.left_out, found.rows)
        sentence = (
            f"For rows that it has not seen{of_rows} the {page.model_name} has an R\u00b2 of "
            f"{shown} (1 is exact, 0 no better than the mean), with a typical error of "
            f"{format_size(error)} (root mean square). On {known} R\u00b2 is {shown_fitted}."
        )
    else:
        facts["left_out_log_loss"] = fit.row_losses(found.left_out)[found.rows].mean()
        share = facts["most_frequent_class"] = float(np.bincount(fit.y).max() / fit.n_rows)
        sentence = (
            f"Of rows that it has not seen{of_rows} the {page.model_name} classifies {shown} "
            f"correctly; the most frequent class would be right in {page.format_score(share)}. Of "
            f"{known} it classifies {shown_fitted} correctly."
        )
    page.report.first_screen.numbers.append((f"{page.score_name} on rows left out", shown))
    page.leads.append((10, sentence))


def root_mean_square_error(fit: Fit, left_out: Floats, rows: Any) -> float:
    return float(np.sqrt(fit.row_losses(left_out)[rows].mean()))


def add_interval_width(page: FitPage) -> None:
    """Add a sentence to the first screen: the distance from the prediction within which 95% of the
    targets of new rows lie.
    """
    found = page.found
    shown = page.some[found.rows[page.some]]
    errors = relative_errors(found)[found.rows]
    widths = conformal_width(errors, CONFIDENCE_LEVEL) * spread_at(
        found.spread, found.left_out[shown]
    )
    width = float(np.median(widths))
    if not math.isfinite(width):
        n_rows = int(found.rows.sum())
        few = f"{n_rows} rows are too few for intervals that hold 95% of new rows."
        page.leads.append((30, few))
        return
    shown_width = format_size(width)
    page.facts["half_width"] = width
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
    page.leads.append((30, sentence))


def _add_predictions(page: FitPage) -> None:
    """Draw targets against predictions of rows left out, with their intervals."""
    found, fit, target = page.found, page.fit, page.target
    shown = page.some[found.rows[page.some]]
    low, high = _left_out_intervals(page, shown)
    inside = (low <= fit.y[shown]) & (fit.y[shown] <= high)
    page.facts["inside"] = float(inside.mean())
    x, y = found.left_out[shown], fit.y[shown]
    worst = np.argsort(-np.abs(y - x), kind="stable")[:N_LABELLED_ROWS].tolist()
    labels = [(i, page.place(int(shown[i]))) for i in worst]
    axes = f"{target} predicted without the row", target
    dots = [
        (f"{page.place(int(row))}: {target} {t:.4g}, predicted {p:.4g}", "" if fits else "out")
        for row, t, p, fits in zip(shown, y, x, inside.tolist())
    ]
    drawn = (
        f" ({len(shown)} of {fit.n_rows}, drawn at random)" if len(shown) < found.rows.sum() else ""
    )
    page.report.add_figure(
        draw_dots(x, y, *axes, low=low, high=high, labels=labels),
        f"Each dot is a row{drawn}: its {target}, and the prediction by a fit without the row. "
        f"Bars are 95% intervals, which hold {inside.sum()} of {len(shown)} rows; the others are "
        "red. The ten largest errors are labelled. On the dashed line predictions are exact.",
        dots=dots,
    )


def _left_out_intervals(page: FitPage, shown: Indices) -> tuple[Floats, Floats]:
    """Return the lower and upper ends of intervals for the rows `shown` of the fit. The interval of
    a row is computed from the errors of the other rows, relative to their spread.
    """
    found = page.found
    errors = relative_errors(found)
    widths = np.full(len(shown), np.inf)
    for k, row in enumerate(shown.tolist()):
        others = found.rows.copy()
        others[row] = False
        widths[k] = conformal_width(errors[others], CONFIDENCE_LEVEL)
    predictions = found.left_out[shown]
    widths = widths * spread_at(found.spread, predictions)
    return predictions - widths, predictions + widths


def _add_confusion(page: FitPage) -> None:
    """Draw the confusion matrix of the left-out rows: for each class, the number of its rows that
    are predicted as each class. Of many classes, those with the most errors are shown.
    """
    found, fit, K = page.found, page.fit, len(page.fit.classes)
    rows, table = np.flatnonzero(found.rows), np.zeros((K, K), int)
    np.add.at(table, (fit.y[rows], found.left_out[rows].argmax(axis=1)), 1)
    page.facts["confusion"] = table.tolist()
    wrong = table - np.diag(np.diag(table))
    order = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")
    some = np.sort(order[:MAX_CONFUSION_CLASSES])
    of_all = f" of the {len(some)} classes, out of {K}, with the most errors" * (len(some) < K)
    page.report.add_figure(
        draw_confusion(table[np.ix_(some, some)], [str(fit.classes[i]) for i in some]),
        f"Which classes are confused? Numbers of rows{of_all}, predicted by a fit without them; "
        "blue is right.",
    )


def add_comparison(page: FitPage) -> None:
    """Add a comparison of the network with a linear model, by the losses of rows left out, to the
    first screen.
    """
    found, fit, facts = page.found, page.fit, page.facts
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
    facts |= {"network_score": own, "linear_score": score}
    facts["network_needed"] = bool(useful and gain > 2 * error)
    facts["loss_difference"], facts["loss_difference_error"] = gain, error
    losses = network.linear.left_out, network.left_out
    if fit.numbers:
        size = "typical error"
        line_size, own_size = (root_mean_square_error(fit, p, network.rows) for p in losses)
    else:
        size = "log loss (minus the logarithm of the probability of the true class)"
        line_size, own_size = (float(fit.row_losses(p)[network.rows].mean()) for p in losses)
    facts |= {"linear_error": line_size, "network_error": own_size}
    sizes = format_size(line_size, own_size), format_size(own_size, line_size)
    other, than, shown = "A linear model", "the network", page.format_score(score, own)
    if found.rival is not None:
        other, than, shown = "A network", "the linear model", page.format_score(own, score)
        sizes, line_size, own_size = sizes[::-1], own_size, line_size
        then += ", and is the fit of this page (`--network` keeps the network)"
    is_score = f"has an R\u00b2 of {shown}" if fit.numbers else f"is right in {shown}"
    sentence = (
        f"{other} {is_score}, with a {size} of {sizes[0]}, where {than} has {sizes[1]}. {then}."
    )
    if line_size:
        change = f"{(own_size - line_size) / line_size:+.1%}".replace("-", "\u2212")
        name = f"{size.partition(' (')[0]} relative to {other.lower()}"
        page.report.first_screen.numbers.append((name, change))
    page.leads.append((20, sentence))


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
            f"{which} is left out, and a {page.model_name} fitted again to the others), because "
            f"{found.why}."
        )
    report.add_text(
        "The score holds for new rows of the same kind: drawn as these were, from the same people, "
        "places or times. It says nothing about what happens if one changes a column on purpose."
    )


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
    """Format a table value for the page. Round floats to four significant digits, keep integers,
    replace NaN and infinity by "missing", and truncate the string of any other value to
    `MAX_CELL_CHARACTERS` characters.
    """
    if isinstance(x, (int, np.integer)) and not isinstance(x, (bool, np.bool_)):
        return int(x)
    if isinstance(x, (float, np.floating)):
        return float(f"{x:.4g}") if math.isfinite(x) else "missing"
    word = str(x)
    return word if len(word) <= MAX_CELL_CHARACTERS else word[: MAX_CELL_CHARACTERS - 1] + "\u2026"


def _target_cell(fit: Fit, i: int) -> Any:
    return _format_cell(float(fit.y[i])) if fit.numbers else str(fit.classes[fit.y[i]])


def _prediction_cell(fit: Fit, found: FitMeasurements, i: int) -> Any:
    p = found.left_out[i]
    if not np.isfinite(p).all():
        return "not left out"
    return _format_cell(float(p)) if fit.numbers else f"{fit.classes[p.argmax()]} ({p.max():.0%})"


# --------------------------------------------------------------------------------------------------
# Which inputs matter, and how?


def add_slopes(page: FitPage) -> None:
    """Add a section on the slopes of predictions with respect to each column of X: the median over
    the rows and the range from 5% to 95%.
    """
    fit, report, rows = page.fit, page.report, page.some
    report.add_section("Which inputs matter, and how?")
    J = fit.prediction_slopes(rows) * fit.X.std(axis=0)  # shape (M, outputs, k)
    if J.shape[1] > 1:
        J = J - J.mean(axis=1, keepdims=True)
    low, middle, high = np.percentile(J, [5, 50, 95], axis=0)
    page.facts["slopes"] = {"low": low, "median": middle, "high": high, "inputs": page.names}
    n_outputs = J.shape[1]
    what = page.target if fit.numbers else "the log-odds"
    if not fit.numbers and n_outputs == 1:
        what += f" of {fit.classes[1]}"
    elif not fit.numbers:
        what = "the logarithm of the probability of a class, relative to the mean of all classes,"
    size = np.abs(J).mean(axis=(0, 1))
    most = MAX_SLOPES if n_outputs == 1 else MAX_SLOPES_OF_CLASS
    shown = np.argsort(-size, kind="stable")[:most]
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


def _add_strongest_slopes(page: FitPage, middle: Floats) -> None:
    """Add a table of the columns of X with the largest effects for and against each of many
    classes, from the median slopes `middle` (classes, k).
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


def add_influence(page: FitPage) -> None:
    """Add a section on the rows that move the fit most: how much predictions change without the
    first of them, and a table.
    """
    found, fit = page.found, page.fit
    report = page.report.add_section("Which rows move the fit most?")
    if found.out is None:
        report.add_text(f"This is not known here, because {found.why}.")
        return
    cook, hat = found.out.cooks_distance, found.out.hat_matrix_diag
    rows = np.argsort(-np.nan_to_num(cook), kind="stable")[:N_LISTED_ROWS]
    row = int(rows[0])
    moved = _changes_without_row(page, row)
    most, mean = float(np.abs(moved).max()), float(np.sqrt(np.mean(moved**2)))
    page.facts |= {"influential_rows": rows, "cooks_distance": cook[rows], "leverage": hat[rows]}
    page.facts |= {"change_without_row": most, "mean_change_without_row": mean}
    what = "predictions" if fit.numbers else "probabilities of the predicted classes"
    page.report.add_text(
        f"{page.place(row, True)} moves the fit most. Without it {what} change by at most "
        f"{format_number(most)}, and by {format_number(mean)} in root mean square."
        + " A fit from a new start may end in another minimum."
        * (not found.closed)
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


def _changes_without_row(page: FitPage, row: int) -> Floats:
    """Return the changes (M,) of the predictions of the shown rows if a row of the fit is removed.
    For classification, these are changes of the probability of the predicted class.
    """
    fit, found = page.fit, page.found
    assert found.out is not None
    X = fit.ob.X[page.some]
    z = np.asarray(found.ob.model.predict(found.theta, X), float)
    changes = found.out.output_changes(X)[:, :, row]
    now, moved = (fit.outputs_to_predictions(outputs) for outputs in (z, z + changes))
    if not fit.numbers:
        own = now.argmax(axis=1)[:, None]
        now, moved = (np.take_along_axis(p, own, 1)[:, 0] for p in (now, moved))
    return np.asarray(moved - now)


# --------------------------------------------------------------------------------------------------
# Where not to believe it, and where training stopped.


def add_domain(page: FitPage) -> None:
    """Add a section on the rows that are extrapolations: a figure of the error of each row left out
    against its leverage without itself, with the limit of the domain.
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
    page.facts |= {"leverage_limit": limit, "n_outside": int(outside.sum())}
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
        page.facts["error_outside"], page.facts["error_inside"] = sizes
        page.report.add_text(
            f"{len(outer)} of the {fit.n_rows} rows lie beyond the limit; left out, they have a "
            f"typical error of {format_size(sizes[0])}, and the others of {format_size(sizes[1])}."
        )


def add_verdict(page: FitPage) -> None:
    """Add a section with the verdict on the point where training stopped, and the ends of the
    spectrum there.
    """
    found, fit, point = page.found, page.fit, page.found.point
    assert point is not None
    facts = page.facts
    facts |= {"kind": point.kind, "certified": bool(point.certified), "verdict": point.sentence}
    facts |= {"lambda_min": point.lambda_min, "lambda_max": point.lambda_max}
    page.report.add_section("Where training stopped").add_verdict_sentence(point)
    if found.n_inactive:
        page.report.add_text(
            "The verdict is on the network without the units whose weights are all 0: "
            f"{found.n_inactive} of {sum(fit.ob.model.sizes[1:-1])}."
        )
    page.report.add_text(
        "Here theta is the vector of all weights. The eigenvalues of the Hessian (the curvatures "
        f"of the loss) range from {format_number(point.lambda_min)} to "
        f"{format_number(point.lambda_max)}."
    )
    if found.moved:
        kind = point.kind.replace("_", " ")
        page.leads.append(
            (
                15,
                f"The fit has not converged: further training leads to another point ({kind}) "
                "with other predictions. Increase max_iter.",
            )
        )


def _add_next_steps(page: FitPage, commands: Sequence[tuple[str, str]]) -> None:
    """Add a section with what a reader can do next."""
    more = "predict_interval(X_new, 0.95)" if page.fit.numbers else "predict_proba(X_new)"
    given = ("Predict new rows:", f"est.predict(X_new)\nest.{more}")
    page.report.add_section("What now")
    for words, command in commands or [given]:
        page.report.add_text(words).add_code(command)


def _add_making(page: FitPage, notes: Sequence[str], made: Sequence[tuple[str, str]]) -> None:
    """Add a section on how the fit was made: data, coding, weight decay, seed and versions."""
    fit, report = page.fit, page.report.add_section("How it was made")
    for sentence in notes:
        report.add_text(sentence)
    _, *hidden, _ = fit.ob.model.sizes
    activations = ", ".join(dict.fromkeys(map(str, fit.ob.model.activation))) if hidden else "none"
    page.facts["alpha"] = fit.alpha
    known = [
        ("units of each layer", ", ".join(map(str, fit.ob.model.sizes))),
        ("activation", activations),
        ("loss", str(fit.ob.loss)),
        ("weight decay, alpha", f"{fit.alpha:.3g}"),
        ("seed of the rows drawn", str(page.seed)),
    ]
    report.add_table(["", ""], [*made, *known])
    versions = show_versions("dict")
    names = ("fastcurv", "numpy", "python", "machine")
    report.add_text("; ".join(f"{name} {versions[name]}" for name in names) + ".")


# --------------------------------------------------------------------------------------------------
# The function for users of Python.


def report(
    estimator: Any,
    X: Any,
    y: Any,
    out: str | PathLike[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    target: str | None = None,
    rng: Any = 0,
    sample_weight: Any = None,
) -> Report:
    """Make a page that states how far a fit can be trusted: scores of left-out rows, intervals,
    influential rows and inputs, and the verdict on the end of training.

    The page describes a fitted estimator. The attribute ``report`` of a result of `minimize` is
    different: it is the verdict on the point where a run ended.

    Parameters
    ----------
    estimator : MLPRegressor, MLPClassifier or Pipeline
        Fitted to X and y, with one target or one class for each row. The last step of a
        scikit-learn pipeline must be one of these estimators.
    X : array_like or sparse matrix (N, k)
        The rows of the fit. If X is a data frame, the page shows its column names and values.
    y : array_like (N,)
        The targets of the fit.
    out : path, optional
        A file to write the page to.
    names : sequence of str, optional
        Names of the columns of X.
    target : str, optional
        The name of y.
    rng : None, int, SeedSequence, BitGenerator or Generator
        The random numbers that draw rows for pictures.
    sample_weight : array_like (N,), optional
        The weights of the fit, which must all be 1: scores and intervals of rows left out count
        each row once.

    Returns
    -------
    Report
        The page. A notebook displays it. ``write(path)`` writes the page to a file, ``to_html()``
        returns the page as a string, and ``to_dict()`` its numbers by name.

    Raises
    ------
    TypeError
        If the estimator is neither an `MLPRegressor` nor an `MLPClassifier`.
    ValueError
        If the estimator is not fitted or has several targets or labels, or if the rows of X and y
        are not those of the fit, have weights, or are fewer than 10.
    ImportError
        If jinja2 or matplotlib is not installed.

    See Also
    --------
    leave_one_out : Each row predicted without itself.
    classify : The verdict on a point.

    Notes
    -----
    Predictions of left-out rows come from one factor of the Hessian at the minimum if refits agree
    with them, otherwise from up to ten folds. The page takes at most twice the processor time of
    one fit plus two seconds. It is one file of at most 300 kB, which requests nothing from a
    network. The names in ``to_dict()`` are listed in the user guide, under *Train on a table and
    read the report*.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((60, 2))
    >>> y = np.sin(X[:, 0]) + 0.1 * rng.standard_normal(60)
    >>> est = fc.MLPRegressor((3,), "tanh", alpha=0.1, random_state=0).fit(X, y)
    >>> found = fc.report(est, X, y, names=["a", "b"]).to_dict()
    >>> found["kind"], found["left_out_score"] > 0.8
    ('minimum', True)
    """
    if sample_weight is not None and not np.all(np.asarray(sample_weight) == 1):
        raise ValueError(
            "sample_weight must be None or 1 for each row for scores and intervals of rows left "
            f"out, got {one_line(np.asarray(sample_weight), 80)}. Fit without weights, or call "
            "leave_one_out on the objective of the fit."
        )
    seed = integer_seed(check_rng(rng))
    columns = getattr(X, "columns", None)
    if names is None and columns is not None:
        names = list(map(str, columns))
    if names is not None:
        _check_names(names, X)
    table = (names, np.asarray(X), ()) if names is not None and not is_sparse(X) else None
    target = target or _series_name(y)
    n_columns = None
    if hasattr(estimator, "steps"):
        pipe, estimator = estimator, estimator[-1]
        if len(pipe) > 1:
            n_columns, X = np.shape(X)[1], pipe[:-1].transform(X)
            names = _transformed_column_names(pipe[:-1], names, X)
    if not hasattr(estimator, "input_jacobian"):
        raise TypeError(
            f"estimator must be an MLPRegressor or an MLPClassifier, got {type_phrase(estimator)}. "
            + (
                "Fit its best_estimator_ or regressor_ alone to the same rows."
                if hasattr(estimator, "best_estimator_") or hasattr(estimator, "regressor_")
                else "Use fastcurv.from_sklearn for networks of scikit-learn."
            )
        )
    page = build_page(
        estimator, X, y, names=names, target=target, seed=seed, table=table, n_columns=n_columns
    )
    if out is not None:
        page.write(out)
    return page


def _series_name(y: Any) -> str | None:
    """Return the name of a series, or of the only column of a data frame, as a string. Return None
    if y has no name.
    """
    columns = list(getattr(y, "columns", ()))
    name = columns[0] if len(columns) == 1 else getattr(y, "name", None)
    return None if name is None else str(name)


def _transformed_column_names(steps: Any, names: Sequence[str] | None, X: Any) -> list[str] | None:
    """Return the names of columns after the steps of a pipeline, or None if they are unknown."""
    try:
        return list(map(str, steps.get_feature_names_out(names)))
    except (AttributeError, ValueError):
        same = names is not None and len(names) == X.shape[1]
        return list(names) if names is not None and same else None

"""A page on a fit: scores of rows that were not fitted, uncertainties of predictions, influential
rows and inputs, and the point where training stopped.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import numpy as np

from ...common.checks import integer_seed, is_iterable, is_sparse, resolve_seed
from ...common.errors import one_line, type_phrase
from ...common.runtime import serial_blas_context
from ...structure.tables import loss_spec
from . import fit_rows
from .fit_network import EstimatorFit, NetworkFit, TrainedNetwork, suppress_warnings
from .fit_numbers import (
    CONFIDENCE_LEVEL,
    FitMeasurements,
    beats_constant_prediction,
    loss_difference,
    measure_fit,
)
from .fit_pictures import (
    FitPage,
    add_calibration_plot,
    add_confusion_matrix,
    add_influence_plot,
    add_influential_row_tables,
    add_interval_plot,
    add_learning_curve,
    add_slope_tables,
    add_validation_curve,
    add_verdict_and_loss_curves,
    choose_shown_rows,
)
from .report import Report
from .tables import MIN_TABLE_ROWS

# maximum relative difference of the loss of the given rows from that of the fit
MAX_LOSS_CHANGE = 1e-3
# maximum difference from the score of a linear model at which the network counts as unnecessary
MAX_LINEAR_SCORE_GAP = 0.05
MAX_NAME_CHARACTERS = 40  # maximum length of column names on the page; longer names are cut
# maximum number of entries of a sparse X that is converted to a dense array
MAX_PAGE_DENSE_ENTRIES = 20_000_000


def build_page(
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
    table: tuple[Sequence[str], Any, Sequence[str]] | None = None,
    n_columns: tuple[int, str] | None = None,
) -> tuple[Report, dict[str, Any]]:
    """Build the HTML report on a fitted network.

    Parameters
    ----------
    estimator : MLPRegressor, MLPClassifier or TrainedNetwork
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
        Sentences that the report shows after the summary.
    source : str
        Python code that defines the fit, X and y, shown before the code that uses them.
    progress : callable, optional
        Called with a few words before each step.
    seed : int
        Seed for the rows that are drawn for pictures and for fits to some of the rows.
    rng : None, int, SeedSequence, BitGenerator or Generator
        Another name for `seed`, as in SciPy.
    table : (sequence of str, array_like (N, K), sequence of str), optional
        Names and values of the columns of the user's table, for the rows that are shown, and the
        places of its rows, such as "line 9", or none; by
        default those of X.
    n_columns : (int, str), optional
        The number of columns of `table` that the fit uses, and the code that returns this number.

    Returns
    -------
    Report, dict
        The report, and a dict of all of its numbers by name. The dict also has two keys for Python
        code. "calls" is a list of dicts with the keys "name", "value" and "call", the code that
        returns the value. "setup" is the code that defines the variables in these calls.

    Raises
    ------
    ValueError
        If y has several targets, or if X and y are not the rows of the fit, have weights, or are
        fewer than 10.
    """
    note = progress or (lambda text: None)
    if is_sparse(X):
        if X.shape[0] * X.shape[1] > MAX_PAGE_DENSE_ENTRIES:
            raise ValueError(
                f"X must have at most {MAX_PAGE_DENSE_ENTRIES} entries for a report, got "
                f"{X.shape}. Use "
                "fewer columns."
            )
        X = X.toarray()
    X = np.asarray(X)
    bare = isinstance(estimator, TrainedNetwork)
    fit: NetworkFit = NetworkFit(estimator, X, y) if bare else EstimatorFit(estimator, X, y)
    _check_rows(fit)
    columns = [f"x{i}" for i in range(X.shape[1])] if names is None else _shorten_names(names)
    _check_names(columns, X)
    target = one_line(target or "y", MAX_NAME_CHARACTERS)
    with serial_blas_context():  # The matrices are small, and waiting threads take processor time.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = measure_fit(fit, note)
            title = f"A network for {target}: how far can it be trusted?"
            page = FitPage(Report(title), found, columns, target, seed)
            if table is not None:
                page.table = _shorten_names(table[0]), np.asarray(table[1], dtype=object)
                page.places = table[2]
            note("pictures")
            choose_shown_rows(page)
            add_summary(page, n_columns or (X.shape[1], "X.shape[1]"))
        doubts = dict.fromkeys(str(w.message) for w in caught if w.category is UserWarning)
        page.facts["warnings"] = list(doubts)
        for sentence in (*doubts, *notes):
            page.report.add_text(sentence)
        with suppress_warnings():  # suppresses warnings about fits to some of the rows
            add_plots(page)
    _add_code(page, source)
    page.facts |= {"calls": page.calls, "setup": "\n".join(found.setup)}
    return page.report, page.facts


def _shorten_names(names: Sequence[str]) -> list[str]:
    return [one_line(name, MAX_NAME_CHARACTERS) for name in names]


def _check_names(names: Sequence[str], X: Any) -> None:
    if not is_iterable(names) or len(names) != np.shape(X)[1]:
        raise ValueError(
            f"names must hold a name for each of {np.shape(X)[1]} columns of X, got "
            f"{one_line(names, 200)}."
        )


def _check_rows(fit: NetworkFit) -> None:
    """Raise ValueError if the rows are too few, are all equal, or are not those of the fit."""
    if fit.n_rows < MIN_TABLE_ROWS:
        raise ValueError(
            f"y must have at least {MIN_TABLE_ROWS} rows for a report, got {fit.n_rows}."
        )
    if (fit.y == fit.y[0]).all():
        raise ValueError(
            f"y must hold different values for a report, got {fit.given.tolist()[0]!r} in each row."
        )
    known = getattr(fit.est, "loss_", None)
    # Early stopping holds rows out, so that the losses of fit and page differ.
    if known is None or getattr(fit.est, "early_stopping", False):
        return
    per_output = loss_spec(fit.ob.loss).sklearn[1](fit.ob.model.sizes[-1])
    loss = fit.ob.value(fit.theta) * per_output
    if abs(loss - known) > MAX_LOSS_CHANGE * max(abs(known), abs(loss)):
        raise ValueError(
            f"X and y must be all rows of the fit, without sample_weight, got rows with a loss of "
            f"{loss:.4g} where estimator.loss_ is {known:.4g}. Call fit on these rows first."
        )


def add_plots(page: FitPage) -> None:
    """Add all plots to the report, in the order in which a reader needs the plots."""
    if page.fit.numbers:
        add_interval_plot(page)
    else:
        add_calibration_plot(page)
        add_confusion_matrix(page)
    add_influence_plot(page)
    add_influential_row_tables(page)
    add_slope_tables(page)
    add_learning_curve(page)
    add_validation_curve(page)
    add_verdict_and_loss_curves(page)


# --------------------------------------------------------------------------------------------------
# The first screen.


def add_summary(page: FitPage, n_columns: tuple[int, str]) -> None:
    """Add the summary of the fit in sentences to the report, with Python code for each number.
    `n_columns` holds the number of columns of the user's table that the fit uses, and the code that
    returns this number.
    """
    found, fit, report = page.found, page.fit, page.report
    _add_table_size(page, *n_columns)
    _add_verdict_sentence(page)
    _add_score(page)
    _add_linear_comparison(page)
    if fit.numbers:
        _add_interval_sentence(page)
    if found.out is not None and not found.moved:
        _add_effective_parameters(page)
    for sentence, calls in fit_rows.defect_sentences(page):
        _add_sentence(page, sentence, calls)
    if found.why:
        report.add_text(
            f"The rows left out come from {_folds_phrase(found)}, because {found.why}. Each was "
            "predicted "
            "by a network fitted again, from its own start, to the rows of the other folds."
        )


def _add_sentence(page: FitPage, sentence: str, calls: Sequence[tuple[str, str]]) -> None:
    page.report.add_lead(sentence).add_calls(calls)
    page.facts.setdefault("first_screen", []).append(sentence)


def _folds_phrase(found: FitMeasurements) -> str:
    return "10 folds" if found.n_folds == 10 else f"{found.n_folds} of 10 folds"


def _add_table_size(page: FitPage, count: int, code: str) -> None:
    """Add the numbers of rows and columns to the report. Add also the number of inputs if that of
    columns differs, as for columns of words. `count` is the number of columns, and `code` the
    Python expression that returns it.
    """
    n, k = page.fit.X.shape
    sentence = f"{n} rows, {count} column{'s' * (count > 1)}"
    calls = [page.record_call("shape", [n, count], f"(len(X), {code})", str((n, count)))]
    page.facts["n_inputs"] = k
    if count != k:
        sentence += f", from which {k} input{'s are' if k > 1 else ' is'} made"
        calls.append(page.record_call("n_inputs", k, "X.shape[1]", str(k)))
    _add_sentence(page, sentence + ".", calls)


def _add_verdict_sentence(page: FitPage) -> None:
    found, point = page.found, page.found.point
    assert point is not None
    what = f"no proved minimum: {point.kind.replace('_', ' ')}"
    if point.kind == "minimum":
        certainty = "proved" if point.certified else "unproved"
        what = f"{certainty} minimum of the loss on these rows"
    if found.n_inactive:
        what += f", of the network without its units of zero weights ({found.n_inactive})"
    lead = "The fit has not converged. Where further training leads: "
    sentence = f"{lead}{what}." if found.moved else f"{what[0].upper()}{what[1:]}."
    page.facts |= {"kind": point.kind, "certified": bool(point.certified)}
    _add_sentence(
        page,
        sentence,
        [page.record_call("verdict", point.sentence, "point.sentence", point.sentence)],
    )


def _add_score(page: FitPage) -> None:
    """Add the score of left-out rows, and that of the rows of the fit, to the report."""
    found, fit = page.found, page.fit
    count = int(found.rows.sum())
    score, fitted = fit.score(found.left_out, found.rows), fit.score(fit.predictions())
    which = f"all {count} of them" if count == fit.n_rows else f"{count} of {fit.n_rows}"
    source = "" if found.closed else f", in {_folds_phrase(found)}"
    early = getattr(fit.est, "early_stopping", False)
    known = "all rows, some of which stopped the fit" if early else "the rows it was fitted to"
    sentence = (
        f"{page.score_name} on rows left out, {which}{source}: {page.format_score(score)} (on "
        f"{known}: "
        f"{page.format_score(fitted)})."
    )
    code = "out.score" if _is_score_of_loss(fit) else "score(left_out, slice(None))"
    if not found.closed:
        code = "score(left_out[seen], seen)"
    calls = [
        page.record_call("left_out_score", score, code, page.format_score(score)),
        page.record_call(
            "training_score", fitted, fit.fitted_score_code, page.format_score(fitted)
        ),
    ]
    if found.closed:
        again = fit.score(found.folds, found.seen)
        page.facts["folds_score"], page.facts["n_folds"] = again, found.n_folds
    if not fit.numbers:
        loss = float(fit.row_losses(found.left_out)[found.rows].mean())
        sentence += f" Log loss: {loss:.3f}."
        code = (
            "out.losses.mean()"
            if found.closed
            else ("-np.nanmean(np.log(np.maximum(left_out[np.arange(len(y)), codes], 1e-15)))")
        )
        calls.append(page.record_call("left_out_log_loss", loss, code, f"{loss:.3f}"))
        share = float(np.bincount(fit.y).max() / fit.n_rows)
        sentence += f" The most frequent class alone: {page.format_score(share)}."
        code = "np.bincount(codes).max() / len(codes)"
        calls.append(page.record_call("most_frequent_class", share, code, page.format_score(share)))
    page.facts["left_out_by"] = "rows" if found.closed else "folds"
    page.facts["left_out_rows"] = count
    _add_sentence(page, sentence, calls)


def _is_score_of_loss(fit: NetworkFit) -> bool:
    """Return True if the score on the page is that of `LeftOut.score`. This is so for
    classification, and for regression with the mse loss.
    """
    return not fit.numbers or fit.ob.loss == "mse"


def _add_linear_comparison(page: FitPage) -> None:
    """Add a comparison with a linear model, by the losses of left-out rows, to the report."""
    found, fit = page.found, page.fit
    if found.linear is None:
        return
    gain, error = loss_difference(found)
    score = found.linear.score
    useful = beats_constant_prediction(found, found.left_out)
    if not useful and not beats_constant_prediction(found, found.linear.left_out):
        constant = "the mean of the targets" if fit.numbers else "the shares of the classes"
        then = f". Neither predicts better than {constant}, so the network is not needed here"
    elif gain > 2 * error:
        then = ", so the network predicts better, by more than two standard errors"
    elif gain < -2 * error:
        then = ", which predicts better: the network is not needed here"
    elif fit.score(found.left_out, found.rows) > score + MAX_LINEAR_SCORE_GAP:
        then = (
            ". The difference is within two standard errors, so these rows do not show that the "
            "network is needed"
        )
    else:
        then = ", so the network is not needed here"
    page.facts["network_needed"] = useful and gain > 2 * error
    page.facts["loss_difference"], page.facts["loss_difference_error"] = gain, error
    line = fit.predictions_code("line.predictions")
    code = "line.score" if _is_score_of_loss(fit) else f"score({line}, slice(None))"
    calls = [page.record_call("linear_score", score, code, page.format_score(score))]
    sentence = f"A linear model: {page.format_score(score)}"
    if not fit.numbers:
        loss = float(found.linear.out.losses.mean())
        sentence += f", log loss {loss:.3f}"
        calls.append(page.record_call("linear_log_loss", loss, "line.losses.mean()", f"{loss:.3f}"))
    _add_sentence(page, sentence + then + ".", calls)


def _add_interval_sentence(page: FitPage) -> None:
    """Add a sentence to the report: the distance from the prediction within which 95% of the
    targets of new rows lie.
    """
    found, fit = page.found, page.fit
    if found.closed:
        out = found.out
        assert out is not None
        low, high = out.interval(fit.ob.X[page.some], CONFIDENCE_LEVEL)
        width = float(np.median(high - low)) / 2 * fit.scale
        found.setup.append(
            f"low, high = (b[:, 0] * {fit.scale_code} for b in out.interval(X[shown], "
            f"{CONFIDENCE_LEVEL}))"
        )
        code = "np.median(high - low) / 2"
        source = "jackknife+"
    else:
        errors = np.sort(np.abs(fit.y - found.left_out)[found.rows])
        # By exchangeability, the ceil(level (N + 1))-th smallest error bounds the error of a new
        # row with the probability `level` (conformal prediction).
        place = math.ceil(CONFIDENCE_LEVEL * (len(errors) + 1)) - 1
        width = float(errors[place]) if place < len(errors) else math.inf
        code = f"np.sort(np.abs(y - left_out))[{place}]"
        source = _folds_phrase(found)
    if not math.isfinite(width):
        count = int(found.rows.sum())
        _add_sentence(
            page, f"{count} rows are too few for intervals that hold 95% of new rows.", []
        )
        return
    sentence = (
        f"A new prediction is within {width:.3g} of the truth for 95% of new rows ({source}, "
        "estimated)."
    )
    _add_sentence(page, sentence, [page.record_call("half_width", width, code, f"{width:.3g}")])


def _add_effective_parameters(page: FitPage) -> None:
    out = page.found.out
    assert out is not None
    effective, n = float(out.hat_matrix_diag.sum()), page.fit.ob.n_params
    page.facts["n_params"] = n
    # Losses that are not convex may give a number of effective parameters out of range.
    if not 0 <= effective <= n:
        return
    code = "out.hat_matrix_diag.sum()"
    call = page.record_call("effective_parameters", effective, code, f"{effective:.3g}")
    _add_sentence(page, f"{effective:.3g} effective parameters of {n}.", [call])


def _add_code(page: FitPage, source: str) -> None:
    """Add a section to the report with the code that defines the variables used by the code next to
    each number. `source` is Python code that defines the fit, X and y.
    """
    lines = [source] if source else []
    page.report.add_section("The calls on this page")
    name = page.fit.name
    known = f" `{name}` is the fit, `X` and `y` are its rows."
    if source:
        known = " `pipe` is the pipeline, `X` and `y` are its rows." * source.startswith("est, ")
    page.report.add_text(f"Calls on this page use what these lines define.{known}")
    page.report.add_code("\n".join([*lines, *page.found.setup]))


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
    seed: int = 0,
    rng: Any = None,
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
    seed : int
        Seed for the rows that are drawn for pictures and for fits to some of the rows.
    sample_weight : array_like (N,), optional
        The weights of the fit, which must all be 1: scores and intervals of rows left out count
        each row once.

    Returns
    -------
    Report
        The page. A notebook displays it. ``write(path)`` writes the page to a file, ``to_html()``
        returns the page as a string, and ``facts`` holds its numbers by name.

    Raises
    ------
    TypeError
        If the estimator is neither an `MLPRegressor` nor an `MLPClassifier`.
    ValueError
        If the estimator is not fitted or has several targets or labels, or if the rows of X and y
        are not those of the fit, have weights, or are fewer than 10.

    See Also
    --------
    leave_one_out : Each row predicted without itself.
    classify : The verdict on a point.

    Notes
    -----
    Predictions of left-out rows come from one factor of the Hessian at the minimum if refits agree
    with them, otherwise from up to ten folds. The page takes at most twice the processor time of
    one fit plus two seconds, part of which is used for fits to some of the rows; pictures that
    would take longer are left out. It is one file of at most 300 kB, which requests nothing from a
    network.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((60, 2))
    >>> y = np.sin(X[:, 0]) + 0.1 * rng.standard_normal(60)
    >>> est = fc.MLPRegressor((3,), "tanh", alpha=0.1, random_state=0).fit(X, y)
    >>> page = fc.report(est, X, y, names=["a", "b"])
    >>> page.facts["kind"], page.facts["left_out_score"] > 0.8
    ('minimum', True)
    """
    if sample_weight is not None and not np.all(np.asarray(sample_weight) == 1):
        raise ValueError(
            "sample_weight must be None or 1 for each row for scores and intervals of rows left "
            f"out, got {one_line(np.asarray(sample_weight), 80)}. Fit without weights, or call "
            "leave_one_out on the objective of the fit."
        )
    seed = integer_seed(resolve_seed(seed, rng, 0))
    columns = getattr(X, "columns", None)
    if names is None and columns is not None:
        names = list(map(str, columns))
    if names is not None:
        _check_names(names, X)
    given, source, n_columns = X, "", None
    table = (names, np.asarray(X), ()) if names is not None and not is_sparse(X) else None
    target = target or _series_name(y)
    if hasattr(estimator, "steps"):
        pipe, estimator = estimator, estimator[-1]
        if len(pipe) > 1:
            X = pipe[:-1].transform(X)
            names = _transformed_column_names(pipe[:-1], names, X)
            source = "est, table, X = pipe[-1], X, pipe[:-1].transform(X)"
            n_columns = np.shape(given)[1], "np.shape(table)[1]"
    if not hasattr(estimator, "input_jacobian"):
        raise TypeError(
            f"estimator must be an MLPRegressor or an MLPClassifier, got {type_phrase(estimator)}. "
            + (
                "Fit its best_estimator_ or regressor_ alone to the same rows."
                if hasattr(estimator, "best_estimator_") or hasattr(estimator, "regressor_")
                else "Use fastcurv.from_sklearn for networks of scikit-learn."
            )
        )
    page, facts = build_page(
        estimator,
        X,
        y,
        names=names,
        target=target,
        source=source,
        seed=seed,
        table=table,
        n_columns=n_columns,
    )
    page.facts = facts
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

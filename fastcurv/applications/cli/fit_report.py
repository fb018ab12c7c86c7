"""A page on a fit: scores of rows that were not fitted, uncertainties of predictions, influential
rows and inputs, and the point where training stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import numpy as np

from ...common.checks import check_rng, integer_seed, is_iterable, is_sparse
from ...common.errors import one_line, type_phrase
from ...common.runtime import serial_blas_context, show_versions
from .fit_network import fit_of, suppress_warnings
from .fit_numbers import FitMeasurements, better_decay, measure_fit
from .fit_rows import defect_sentences
from .fit_sections import (
    MAX_LEADS,
    FitPage,
    add_comparison,
    add_curvature,
    add_domain,
    add_first_picture,
    add_influence,
    add_interval_width,
    add_learning_curve,
    add_rival,
    add_score,
    add_slopes,
    add_trust,
    choose_shown_rows,
)
from .report import Report, check_report_packages, paragraph

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
    group_notes: Sequence[str] = (),
    source: str = "",
    progress: Callable[[str], None] | None = None,
    seed: int = 0,
    table: tuple[Sequence[str], Any, Sequence[str]] | None = None,
    n_columns: tuple[int, str] | None = None,
    found: FitMeasurements | None = None,
    commands: Sequence[tuple[str, str]] = (),
    made: Sequence[tuple[str, str]] = (),
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
        Sentences on how the fit was made.
    group_notes : sequence of str
        Notes on columns that may name groups of rows. The first screen shows them too.
    source : str
        Python code that defines the fit, X and y, shown before the code that uses them.
    progress : callable, optional
        Called with a few words before each step.
    seed : int
        Seed for the rows that are drawn for pictures and for fits to some of the rows.
    table : (sequence of str, array_like (N, K), sequence of str), optional
        Names and values of the columns of the user's table, for the rows that are shown, and the
        places of its rows, such as "line 9", or none; by default those of X.
    n_columns : (int, str), optional
        The number of columns of `table` that the fit uses, and the code that returns this number.
    found : FitMeasurements, optional
        The result of `measure_fit` for this fit, if it was computed before.
    commands : sequence of (str, str)
        What a reader can do next, in a few words, and the command; by default calls in Python.
    made : sequence of (str, str)
        How the fit was made: names and values, shown above the settings of the fit.

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
    check_report_packages()
    columns = [f"x{i}" for i in range(X.shape[1])] if names is None else _shorten_names(names)
    _check_names(columns, X)
    target = one_line(target or "y", MAX_NAME_CHARACTERS)
    with serial_blas_context():  # The matrices are small, and waiting threads take processor time.
        if found is None:
            found = measure_fit(fit_of(estimator, X, y), note)
        page = FitPage(Report(f"{target}: how far can the predictions be trusted?"), found, columns,
                       target, seed)  # fmt: skip
        if table is not None:
            page.table = _shorten_names(table[0]), np.asarray(table[1], dtype=object)
            page.places = table[2]
        note("pictures")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            choose_shown_rows(page)
            _describe_rows(page, *(n_columns or (X.shape[1], "X.shape[1]")))
            add_score(page)
            add_comparison(page)
            if page.fit.numbers:
                add_interval_width(page)
        doubts = [str(w.message) for w in caught if w.category is UserWarning]
        with suppress_warnings():  # about fits to some of the rows, and of matplotlib
            add_first_picture(page)
            for sentence in group_notes:
                page.add_lead(21, sentence)
            for sentence, calls in defect_sentences(page):
                page.add_lead(22, sentence, calls)
            add_trust(page)
            trust = page.report.sections[-1]
            add_learning_curve(page)
            add_slopes(page)
            add_influence(page)
            add_domain(page)
            _add_next_steps(page, commands)
            _add_making(page, notes, made)
            add_curvature(page)
            add_rival(page)
    page.facts["warnings"] = list(dict.fromkeys((*found.doubts, *doubts)))
    leads = [sentence for _, sentence in sorted(page.leads, key=lambda lead: lead[0])]
    leads += page.facts["warnings"]
    page.report.first_screen.leads += leads[:MAX_LEADS]
    page.facts["first_screen"] = leads[:MAX_LEADS]
    for sentence in leads[MAX_LEADS:]:
        trust.words.insert(0, paragraph(sentence))
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


def _describe_rows(page: FitPage, n_columns: int, code: str) -> None:
    """Add the numbers of rows, columns and inputs below the title. `n_columns` is the number of
    columns that the fit uses, and `code` the Python expression that returns it.
    """
    n_rows, n_inputs = page.fit.X.shape
    calls = [
        page.record_call(
            "shape", [n_rows, n_columns], f"(len(X), {code})", str((n_rows, n_columns))
        )
    ]
    page.facts["n_inputs"] = n_inputs
    sentence = f"{n_rows} rows, {n_columns} column{'s' * (n_columns > 1)}"
    if n_columns != n_inputs:
        sentence += f" as {n_inputs} inputs"
        calls.append(page.record_call("n_inputs", n_inputs, "X.shape[1]", str(n_inputs)))
    _, *hidden, _ = page.fit.ob.model.sizes
    units = " and ".join(map(str, hidden))
    kind = f"a network with {units} hidden units" if hidden else "a linear model"
    page.report.subtitle = f"{sentence}; {kind}."
    page.report.add_calls(calls)


def _add_next_steps(page: FitPage, commands: Sequence[tuple[str, str]]) -> None:
    """Add a section with what a reader can do next."""
    page.report.add_section("What now")
    if not commands:
        name = page.fit.name
        more = (
            f"{name}.predict_interval(X_new, 0.95)"
            if page.fit.numbers
            else f"{name}.predict_proba(X_new)"
        )
        ratio = better_decay(page.found) or 10.0
        commands = (
            ("Predict new rows:", f"{name}.predict(X_new)\n{more}"),
            (
                f"Fit again with {ratio:.2g} times the weight decay:",
                f"{name}.set_params(alpha={ratio * page.fit.alpha:.3g}).fit(X, y)",
            ),
        )
    for words, command in commands:
        page.report.add_text(words).add_code(command)


def _add_making(page: FitPage, notes: Sequence[str], made: Sequence[tuple[str, str]]) -> None:
    """Add a section on how the fit was made: data, coding, weight decay, seed and versions."""
    fit, report = page.fit, page.report.add_section("How it was made")
    for sentence in notes:
        report.add_text(sentence)
    sizes = ", ".join(map(str, fit.ob.model.sizes))
    _, *hidden, _ = fit.ob.model.sizes
    activations = ", ".join(dict.fromkeys(map(str, fit.ob.model.activation))) if hidden else "none"
    known = [
        ("units of each layer", sizes),
        ("activation", activations),
        ("loss", str(fit.ob.loss)),
        ("weight decay, alpha", f"{fit.alpha:.3g}"),
        ("seed of the rows drawn", str(page.seed)),
    ]
    report.add_table(["", ""], [*made, *known])
    versions = show_versions("dict")
    names = ("fastcurv", "numpy", "python", "machine")
    report.add_text("; ".join(f"{name} {versions[name]}" for name in names) + ".")


def _add_code(page: FitPage, source: str) -> None:
    """Add a section to the report with the code that defines the variables used by the code next to
    each number. `source` is Python code that defines the fit, X and y.
    """
    lines = [source] if source else []
    page.report.add_section("Python for the numbers on this page")
    name = page.fit.name
    known = f" `{name}` is the fit, `X` and `y` are its rows."
    if source:
        known = " `pipe` is the pipeline, `X` and `y` are its rows." * source.startswith("est, ")
    page.report.add_text(f"Run these lines first, then the code next to any number.{known}")
    page.report.add_code("\n".join([*lines, *page.found.setup]), folded=True)


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
        The random numbers that draw rows for pictures and for fits to some of the rows.
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
    seed = integer_seed(check_rng(rng))
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

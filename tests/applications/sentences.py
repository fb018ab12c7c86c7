"""All texts of verdicts, endings, causes, advice and reports in one file, to be read as a whole.

    python -m tests.applications.sentences

This command writes ``tests/applications/sentences.txt``. Verdicts, endings and causes are rendered
from constructed fields, so that the text is equal on every machine. In the report, # stands for
numbers. Read the differences before a commit: a sentence that a reader cannot explain is
mended.
"""

from __future__ import annotations

import html
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import fastcurv as fc
from fastcurv.applications.diagnosis.diagnose import CAUSES
from fastcurv.common.sentences import (
    CLAUSES,
    ENDINGS,
    FIT_AUDIENCE,
    OBJECTIVE_AUDIENCE,
    RUN_AUDIENCE,
    VERDICT_ADVICE,
    Note,
    render,
    render_notes,
)
from fastcurv.critical.decide import Reason
from fastcurv.critical.report import for_audience

PATH = Path(__file__).parent / "sentences.txt"
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")
# The numbers of the templates of verdicts, as of a network with 12 parameters.
NUMBERS: dict[str, Any] = {
    "n": 12, "n_unexplained": 2, "loss": 6e-21, "decrement": 5e-21, "threshold": 6e-29,
    "gradient_norm": 1e-9, "gradient_tol": 1e-6, "gradient_residual": 0.97, "place":
    "within 1e-09 of theta", "h": 2e-4, "inertia": "9 positive, 1 negative and 2 zero eigenvalues",
    "signs": "9 positive and 1 negative eigenvalues, 12 in all",
    "n_positive": 9, "n_negative": 1, "n_negative_low": 1, "n_zero": 2, "n_symmetry": 1,
    "n_unstable_signs": 1, "n_within_error": 0, "n_residuals": 4, "low": -0.5, "high": 8.0,
    "smallest_magnitude": 0.02, "smallest_magnitude_error": 1e-13, "curvature_floor": 1e-3,
    "l2": 1e-2, "two_vector_radius": 1e-5, "newton_length": 1e-8, "assumed_eps": 64, "risk": 4e-3,
    "accepted_risk": 1e-3, "n_steps_needed": 446, "ritz_low": 0.03, "ritz_high": 8.0,
    "side": "below -", "other_sign": "negative", "n_products": 40,
    "limit": "9 Hessian-vector products", "max_time": 0.5,
    "unproved_reason": "Loss(squares) is user-defined",
    "suggested_risk": "0.01", "no_minimum_reason": "every sample has label 1 at output 0",
    "n_kinks": 3, "n_newton_steps": 4, "nearest": "a certified minimum",
    "nearest_distance": 2e-3, "saturated": "80%", "certain": "60%", "n_units": 8, "dead_units": 5,
    "n_active_kinks": 2,
    "n_collapsed": 1, "n_copies": 0, "failure_probability": 4e-3, "radius": 3e-10, "index": 1,
    "kind": "minimum", "change": "83%", "allowed_change": "1e-06%", "trivial": "constant output",
}  # fmt: skip
# The numbers of the notes on runs and searches.
NOTE_NUMBERS = NUMBERS | {
    "cause": "tiny_steps",
    "watched": "validation loss", "n_records": 5, "patience": 5, "before": "0.12346", "after":
    "0.12345", "n_iterations": 50, "fraction": 1e-8, "distance": "1e-8", "ratio": "0.8",
    "statement": "<the verdict>", "reason": "<its evidence>", "excess": "1e-25", "lower_bound": "0",
    "lowest": "0.012345679", "loss": "0.02", "eigenvalue": -0.3, "flat_ratio": 1e-9, "curvature":
    -0.7, "rounding": "1e-15", "length": 1.6, "gain": 1e-9, "wanted": "index",
    "kink_missing": "slopes", "limit": "max_iter", "n_negative": 2,
}  # fmt: skip


def verdict_lines() -> Iterator[str]:
    """Yield, for every rule, the sentence and the reason of a verdict with one of the kinds that
    the rule gives.
    """
    point = fc.classify(fc.testing.lecture_toy(), np.zeros(2))
    every = {name: next(iter(options)) for name, options in CLAUSES.items()}
    every |= {
        "plateau": "all", "saturation": True, "certain": True, "above_tolerance": "above",
        "newton_change": True, "stationary": False, "of_residuals": False, "complement": None,
        "kinks_of_verdict": None, "time_limit": None, "units": False, "assumed_error": None,
        "two_vector_region": "ball", "one_sign": False, "no_minimum": False,
    }  # fmt: skip
    shown = {
        "kind": "undecided", "certified": False, "failure_probability": np.nan, "radius": None,
        "gradient_norm": 1e-9, "gradient_tol": 1e-6, "n_zero": None, "n_symmetry": None,
        "n_kinks": 3, "n_params": 12, "_numbers": NUMBERS, "_clauses": every,
    }  # fmt: skip
    far = {"kind": "not_critical", "gradient_norm": 1e-3}
    proved = {"certified": True, "failure_probability": 0.0, "radius": 3e-10}
    missing = {"missing_hypothesis": "h", "_numbers": NUMBERS | {"h": 0.8}}
    positive = NUMBERS | {
        "inertia": "11 positive, 0 negative and 1 zero eigenvalues (1 by symmetry)",
        "signs": "11 positive and 0 negative eigenvalues, 12 in all; zero by symmetry: 1",
        "h": 0.8, "low": 0.02, "n_negative": 0,
    }  # fmt: skip
    cases: dict[str, dict[str, Any]] = {
        "INFIMUM_AT_INFINITY": far | {"plateau": True},
        "GRADIENT_ABOVE_TOL": far | {"newton_steps": "diverged"},
        "ON_PLATEAU": far | {"plateau": True, "newton_steps": "plateau"},
        "DISTANCE_UNKNOWN": {"limit": "max_products", "gradient_norm": 1e-3},
        "MAYBE_KINK_MINIMUM": {"gradient_norm": 1e-3},
        "INTERPOLATION": proved | {"kind": "minimum", "_clauses": every | {"of_residuals": True}},
        "KANTOROVICH": proved
        | {"kind": "minimum", "n_symmetry": 1, "_numbers": positive | {"h": 2e-4}},
        "KANTOROVICH_SADDLE": proved | {"kind": "saddle"},
        "TWO_VECTOR_SADDLE": proved | {"kind": "saddle"},
        "CURVATURE_FLOOR": proved | {"kind": "minimum"},
        "ONE_SIDED_SADDLE": {"kind": "saddle"},
        "ZERO_HESSIAN": {"kind": "degenerate"},
        "ONE_SIDED_HESSIAN": {"_numbers": positive},
        "ZERO_EIGENVALUES": {"kind": "degenerate", "n_zero": 2, "n_symmetry": 1},
        "UNSTABLE_SIGNS": {"kind": "degenerate", "n_zero": 2, "n_symmetry": 1},
        "GRADIENT_NOT_REDUCED": {"_numbers": positive},
        "MEASURED_SIGNS": missing | {"kind": "minimum", "n_symmetry": 1, "_numbers": positive},
        "MEASURED_SADDLE": missing | {"kind": "saddle"},
        "STABILITY_UNKNOWN": {"limit": "max_time", "_numbers": NUMBERS | {"limit": "0.5 s"}},
        "CURVATURE_FLOOR_AT_THETA": missing,
        "BELOW_PRODUCT_ERROR": {"_numbers": NUMBERS | {"low": -3e-16, "high": 8e-16}},
        "NO_ACCEPTED_RISK": {"_numbers": positive},
        "RISK_TOO_LARGE": {"limit": "max_products", "_numbers": positive},
        "UNEXPLAINED_ZERO": {"kind": "degenerate"},
        "WITHIN_ACCEPTED_RISK": {"kind": "minimum", "failure_probability": 4e-3},
        "KINK_MINIMUM": proved | {"kind": "minimum"},
    }
    for rule in Reason:
        one = changed(point, rule=rule, **shown | cases.get(rule.name, {}))
        yield f"{rule.name}\n    {one.sentence}\n    {one.reason}"
    finer = {
        "not finite": far | {"gradient_norm": 1e-9},
        "with a tolerance of the caller": far | {"_clauses": every | {"newton_change": False}},
        "with a large change": far | {"_numbers": NUMBERS | {"decrement": 1.0}},
        "with a small change": far | {"_numbers": NUMBERS | {"decrement": 3e-26}},
    }
    for name, fields in finer.items():
        one = changed(point, rule=Reason.GRADIENT_ABOVE_TOL, **shown | fields)
        yield f"GRADIENT_ABOVE_TOL, {name}\n    {one.sentence}"
    top = changed(point, rule=Reason.KANTOROVICH, **shown | proved | {"kind": "maximum"})
    yield f"KANTOROVICH, at a maximum\n    {top.sentence}"


def changed(point: Any, **fields: Any) -> Any:
    """Return the verdict with other values of fields, its own or those of its evidence."""
    own = {name: x for name, x in fields.items() if name in vars(point)}
    evidence = {name: x for name, x in fields.items() if name not in own}
    return replace(point, evidence=replace(point.evidence, **evidence), **own)


def clause_lines() -> Iterator[str]:
    """Yield every clause of the templates, by its name and its key."""
    first = {name: next(iter(options)) for name, options in CLAUSES.items()}
    for name, options in CLAUSES.items():
        for key in options:
            yield f"{name}, {key}: {render(f'<{name}>', NUMBERS, first | {name: key}).strip()}"


def ending_lines() -> Iterator[str]:
    """Yield the sentence of every note on the end of a run or a search."""
    special = {"no_negative_curvature": {"curvature": -1e-16}, "slope_only": {"curvature": 0.2}}
    for key in ENDINGS:
        numbers = NOTE_NUMBERS | special.get(key, {})
        yield f"{key}: {render_notes([Note(key, numbers)])}"


def advice_lines() -> Iterator[str]:
    """Yield the advice on verdicts for every audience."""
    point = fc.classify(fc.testing.lecture_toy(), np.zeros(2))
    audiences = {"objective": OBJECTIVE_AUDIENCE, "fit": FIT_AUDIENCE, "run": RUN_AUDIENCE}
    for key in VERDICT_ADVICE:
        # `_advice` follows from the fields; here every key is rendered
        kind = type("Advised", (type(point),), {"_advice": key})
        one = kind(**{**vars(point), "_numbers": NUMBERS})
        for name, audience in audiences.items():
            told = for_audience(one, audience)._advice_sentence
            yield f"{key}, {name}: {told or '(none)'}"


def cause_lines() -> Iterator[str]:
    """Yield the sentence of every cause of failing training, and what helps."""
    facts = SimpleNamespace(offset=12.0, max_stable_learning_rate=0.2)
    for cause in CAUSES:
        yield f"{cause.name}: {cause.sentence.format(number='42', f=facts)}. {cause.cure}"


def text_of_page(page: str) -> str:
    """Return the text of an HTML page, a line for each block, with # in place of numbers."""
    page = re.sub(r"<(style|script|svg)\b.*?</\1>", "", page, flags=re.DOTALL)
    page = re.sub(r"</?(p|h\d|tr|li|pre|figure|figcaption|div|section|nav)\b[^>]*>", "\n", page)
    page = re.sub(r"</t[dh]>", " | ", page)
    text = html.unescape(re.sub(r"<[^>]*>", "", page))
    lines = (
        re.sub(r"\s+", " ", NUMBER.sub("#", line)).strip().removesuffix(" |")
        for line in text.splitlines()
    )
    return "\n".join(line for line in lines if line and not line.startswith("fastcurv #"))


def report_of_a_fit() -> str:
    """Return the text of the page of `fastcurv.report` on a fitted estimator."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (60, 2))
    y = np.sin(2 * X[:, 0]) + 0.1 * rng.standard_normal(60)
    net = fc.MLPRegressor((3,), "tanh", alpha=1.0, random_state=0).fit(X, y)
    return text_of_page(fc.report(net, X, y, names=["light", "water"], target="height").to_html())


def sentences() -> str:
    """Return the text of the golden file."""
    sections = {
        "Verdicts": "\n".join(verdict_lines()),
        "Clauses of verdicts": "\n".join(clause_lines()),
        "Endings of runs and searches": "\n".join(ending_lines()),
        "Advice on verdicts": "\n".join(advice_lines()),
        "Causes of failing training": "\n".join(cause_lines()),
        "Report on a fitted estimator": report_of_a_fit(),
    }
    return "\n\n".join(f"{name}\n{'=' * len(name)}\n{text}" for name, text in sections.items())


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PATH.write_text(sentences() + "\n", encoding="utf-8")

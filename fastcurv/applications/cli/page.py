"""The report on a trained network: training, verdict, spectrum, landscape, layers, cost."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import Any

import numpy as np

import fastcurv as fc

from ...common.runtime import raise_if_interrupted
from ...spectrum.draw import BAND_STANDARD_ERRORS
from ...spectrum.results import missed_clause
from ..diagnosis.diagnose import Diagnosis, diagnose_with_verdict
from ..plots.landscape import LandscapeDisplay
from ..plots.spectrum import (
    SpectrumDisplay,
    all_eigenpairs,
    extreme_eigenpairs,
    select_extreme_pairs,
)
from ..plots.style import new_axes
from .advice import ShellCommands
from .fit_pictures import draw_lines
from .output import describe_objective, point_facts
from .recipe import SavedRun
from .report import Report

# maximum number of parameters for which all eigenvalues are computed, which takes seconds
PAGE_DENSE_MAX_N = 1500
PICTURE_INCHES = (5.2, 3.6)  # size of the picture of the spectrum


def build_report(
    objective: Any, saved: SavedRun, data: Any, point: Any, args: Namespace, shell: ShellCommands
) -> Report:
    """Return the page of `fastcurv report` on a saved network, without writing the page to a file.
    `saved` is the run and `data` its samples, `point` is the verdict on its theta, and `shell`
    replaces Python calls by commands.
    """
    began = time.perf_counter()
    hessian = objective.hessian(saved.theta)
    page = Report(f"Curvature of a network trained on {data.name}")
    page.add_section("Verdict").add_verdict(point)
    page.subtitle = f"{describe_objective(objective, data)}. Theta is the vector of all weights."
    page.add_section("The end of training")
    facts = point_facts(objective, saved.theta, data)
    names = {"value": "loss", "gradient_norm": "gradient norm", "train_accuracy": "accuracy"}
    rows = [[names.get(name, name.replace("_", " ")), value] for name, value in facts.items()]
    page.add_table(["at the end", "value"], rows)
    _add_training(page, saved)
    page.add_section("What would help")
    add_causes_and_advice(
        page,
        shell.translate_diagnosis(
            diagnose_with_verdict(objective, saved.theta, saved.named_records, point)
        ),
    )
    spent = _add_spectrum(page, hessian, point, args)
    _add_landscape(page, objective, saved.theta, args.seed)
    _add_layers(page, objective, hessian, saved.theta, args.seed)
    page.add_section("Cost")
    rows = [["verdict", point.n_products, round(point.wall_time, 2)], *spent]
    total = round(time.perf_counter() - began + point.wall_time, 2)
    page.add_table(
        ["what", "products with the Hessian", "seconds"], [*rows, ["this page", "", total]]
    )
    known = fc.show_versions("dict")
    page.add_text("; ".join(f"{name} {known[name]}" for name in known if name != "available") + ".")
    return page


def add_causes_and_advice(page: Report, found: Diagnosis) -> None:
    """Add the causes of failing training and the advice for each."""
    page.add_text(found.sentence)
    if found.causes:
        rows = [[a.name, a.confidence, a.sentence, a.call] for a in found.causes]
        page.add_table(["cause", "how sure", "evidence", "what helps"], rows)
    page.add_table(["fact", "value"], found.evidence()[1:])


def _add_training(page: Report, saved: SavedRun) -> None:
    history = saved.history
    if not history or not len(history["loss"]):
        return
    page.add_section("Training")
    phases = saved.phases or (("training", len(history["loss"])),)
    for what, label in (("loss", "loss"), ("gradient_norm", "gradient norm")):
        lines: dict[str, Any] = {}
        begin = 0
        for name, count in phases:
            part = slice(max(0, begin - 1), begin + count)
            lines[name] = history["time"][part], history[what][part], None
            begin += count
        positive = all(np.all(np.asarray(y) > 0) for _, y, _ in lines.values())
        picture = draw_lines(lines, "seconds", label, logy=positive, markers=False)
        page.add_figure(picture, f"The {label} during training, at every record.")


def _add_spectrum(page: Report, hessian: Any, point: Any, args: Namespace) -> list[list[Any]]:
    n, start = hessian.shape[0], time.perf_counter()
    density = fc.spectral_density(hessian, n_probes=args.probes, n_steps=args.steps, seed=args.seed)
    between = time.perf_counter()
    dense = n <= PAGE_DENSE_MAX_N
    known = (
        all_eigenpairs(hessian)
        if dense
        else extreme_eigenpairs(hessian, 5, args.seed, args.progress)
    )
    pairs, ticks = select_extreme_pairs(known, 5) if dense else known, known.values
    proved = point.kind == "minimum" and point.certified
    low = max(0.0, float(point.lambda_min_bounds[0])) if proved else -np.inf
    shown = density.regrid(axis="log")
    picture = SpectrumDisplay(shown, eigenvalues=ticks, bounds=(low, np.inf))
    picture.plot(new_axes(figsize=PICTURE_INCHES))
    marked = f"all {n} eigenvalues" if dense else f"the {len(ticks)} outermost eigenvalues"
    made = (
        ""
        if density.exact
        else (
            f" by stochastic Lanczos quadrature; the band is {BAND_STANDARD_ERRORS:g} standard "
            f"errors of {density.n_probes} probes"
        )
    )
    page.add_section("Spectrum").add_figure(
        picture.figure_,
        f"Density of the Hessian's {n} eigenvalues{made}; marks on the axis: {marked}."
        + (" All are proved positive: nothing lies at or below 0." if low > 0 else ""),
    )
    page.add_table(["eigenvalue", "residual"], zip(pairs.values, pairs.residuals))
    if missed_clause(pairs):
        page.add_text(f"The eigenvalues in the table: {missed_clause(pairs)}.")
    end = time.perf_counter()
    return [
        ["density", density.n_products, round(between - start, 2)],
        ["eigenvalues", pairs.n_products, round(end - between, 2)],
    ]


def _add_landscape(page: Report, objective: Any, theta: np.ndarray, seed: int) -> None:
    page.add_section("Landscape")
    fine = {"n_grid": 61}
    scaled = LandscapeDisplay.slice(objective, theta, directions="random", seed=seed, **fine)
    page.add_figure(
        draw_lines(
            {scaled.names[0]: (scaled.steps, scaled.losses, None)},
            "steps, as long as each unit's weights", "loss", markers=False,
        ),
        "The loss along a random direction, scaled unit by unit to the weights. A single random "
        "direction rarely shows a descent direction.",
    )  # fmt: skip
    plane = LandscapeDisplay.slice(
        objective, theta, directions="eigenvectors", n_dims=2, n_grid=3, seed=seed
    )
    lines = {}
    for name, direction in zip(plane.names, plane.directions):
        line = LandscapeDisplay.slice(objective, theta, directions=direction, **fine)
        lines[name] = line.steps, line.losses, None
    page.add_figure(
        draw_lines(lines, "distance", "loss", markers=False),
        "The loss along the eigenvectors of the lowest and the highest eigenvalue.",
    )


def _add_layers(page: Report, objective: Any, hessian: Any, theta: np.ndarray, seed: int) -> None:
    rows = []
    parts = zip(objective.model.unflatten(theta), objective.model.unflatten(hessian.gradient))
    for number, (weights, gradient) in enumerate(parts):
        block = hessian.restrict(layers=[number])
        ends = raise_if_interrupted(
            fc.eigsh(block, k=min(2, block.shape[0]), which="BE", tol=1e-4, seed=seed)
        ).values
        shape = " x ".join(map(str, weights[0].shape))
        rows.append(
            [
                number + 1,
                shape,
                _root_sum_of_squares(weights),
                _root_sum_of_squares(gradient),
                fc.trace(block, seed=seed).estimate,
                ends[0],
                ends[-1],
            ]
        )
    page.add_section("Layer by layer")
    header = ["layer", "weights", "norm", "gradient norm", "trace", "lowest", "highest eigenvalue"]
    page.add_table(header, rows)
    page.add_text("Trace and eigenvalues are those of the layer's own block of the Hessian.")


def _root_sum_of_squares(parts: Any) -> float:
    return float(np.sqrt(sum(np.sum(np.square(part)) for part in parts if part is not None)))

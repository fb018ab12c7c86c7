"""The whole job, end to end, on real data: what ``fastcurv demo`` runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

import fastcurv as fc

from .. import plots
from ..critical.result import CriticalPoint
from ..protocols import Array
from ..spectrum.density_result import SpectralDensity
from .datasets import Dataset
from .output import Output, describe, extremes, state, verdict_lines, write_picture
from .recipe import Recipe
from .report import Report

Say = Callable[[str], None]

SECOND = "newton-cg"  # the method that goes to the critical point
NARROW = 4  # units in the last hidden layer of the narrower network
LOOKED_AT = (
    "A network with {n} parameters was trained on scikit-learn's handwritten digits, and its exact "
    "Hessian was looked at on the way."
)
NARROWER = (
    f"A network with only {NARROW} units in its last hidden layer was trained until its gradient "
    "was gone. With the missing units added, all their weights zero, it computes the same, and its "
    "gradient is still zero: a critical point of the full network's loss."
)


def run(
    out: str | PathLike[str] = "fastcurv-demo.html",
    *,
    picture: str | PathLike[str] | None = None,
    seed: int = 0,
    n_threads: int | None = None,
    quick: bool = False,
    progress: bool = True,
    say: Say | None = None,
) -> dict[str, Any]:
    """Train on digits, look at the curvature on the way, judge the end, leave a saddle.

    Parameters
    ----------
    out : path
        The report to write.
    picture : path or None
        Also write spectra and escape as one picture there.
    seed : int
    n_threads : int or None
    quick : bool
        A smaller net, fewer samples, fewer probes: seconds instead of a minute or two.
    progress : bool
        Whether to show progress bars.
    say : callable or None
        Takes each line that is told on the way; None: standard output does.

    Returns
    -------
    dict
        ``report`` (its path), ``verdict`` at the end, ``saddle`` (the verdict there), ``escaped``
        (the step down) and ``accuracy`` on held-out samples.
    """
    started, say = time.perf_counter(), say or Output().say
    say("reading scikit-learn's handwritten digits")
    recipe = Recipe("digits", (10,) if quick else (32, 16), "tanh", l2=1e-3, seed=seed)
    data = recipe.dataset()
    if quick:
        data = replace(data, X=data.X[::4], y=data.y[::4])
    objective = recipe.objective(data, n_threads)
    page = Report("Where did training stop?")
    say(describe(objective, data))

    moments, result = train(objective, data, seed, quick, progress, say)
    page.text(LOOKED_AT.format(n=objective.n_params) + f" {describe(objective, data)}.")
    page.section("Training").table(
        ["moment", "state"], [[k, state(objective, t, data)] for k, t in moments.items()]
    )

    say("\nThe Hessian's spectrum on the way")
    densities = spectra(page, objective, moments, say, seed=seed, quick=quick, progress=progress)

    say("\nWhere training stopped")
    point = fc.classify(objective, result.x, seed=seed)
    for line in verdict_lines(point):
        say(line)
    page.section("The verdict at the end").verdict(point)

    say("\nA saddle, and the way down from it")
    theta = find_saddle(recipe, objective, data, seed, progress)
    saddle = fc.classify(objective, theta, dense_below=0, seed=seed)
    page.section("A saddle, and the way down").text(NARROWER)
    escaped = leave(page, objective, theta, saddle, progress, say)
    if picture is not None and escaped is not None:
        write_picture(summary(densities, objective, theta, escaped.x - theta), picture)

    seconds = time.perf_counter() - started
    page.text(f"All of this took {seconds:.0f} seconds.")
    path = page.write(out)
    say(f"\n{seconds:.0f} s. The report: {path}")
    accuracy = data.score(objective.model.predict(result.x, data.X_test), data.y_test)
    return {
        "report": path,
        "verdict": point,
        "saddle": saddle,
        "escaped": escaped,
        "accuracy": accuracy,
        "loss_at_saddle": float(objective.value(theta)),
        "loss_after_escape": None if escaped is None else float(escaped.fun),
    }


def train(
    objective: fc.Objective, data: Dataset, seed: int, quick: bool, progress: bool, say: Say
) -> tuple[dict[str, Array], OptimizeResult]:
    """Adam on mini-batches, then a second-order method until the gradient is gone; three moments of
    it.
    """
    theta = objective.model.init(seed=seed)
    moments = {"start": theta}
    options: Any = {"batch_size": 64, "seed": seed, "progress": progress}
    say(f"training: adam on mini-batches, then {SECOND} until the gradient is gone")
    say(f"  start      {state(objective, theta, data)}")
    theta = fc.minimize(objective, theta, "adam", max_iter=2, **options).x
    moments["middle"] = theta
    say(f"  middle     {state(objective, theta, data)}")
    theta = fc.minimize(objective, theta, "adam", max_iter=20 if quick else 40, **options).x
    say(f"  adam       {state(objective, theta, data)}")
    result = fc.minimize(objective, theta, SECOND, max_iter=300, progress=progress)
    moments["end"] = result.x
    say(f"  {SECOND:<9}  {state(objective, result.x, data)}")
    say(f"  {result.message}")
    return moments, result


def spectra(
    page: Report,
    objective: fc.Objective,
    moments: dict[str, Array],
    say: Say,
    *,
    seed: int,
    quick: bool,
    progress: bool,
) -> dict[str, SpectralDensity]:
    """Density and extreme eigenvalues at each moment, as one picture and one table."""
    figure = plots.new_figure((9.0, 3.2))
    rows, densities = [], {}
    axes = figure.subplots(1, len(moments), sharey=True)
    for ax, (name, theta) in zip(axes, moments.items()):
        hessian = objective.hessian(theta)
        density = fc.spectral_density(hessian, n_probes=4 if quick else 10, n_steps=80, seed=seed)
        pairs = extremes(hessian, 5, seed, progress)
        plots.density(density, ax)
        densities[name] = density
        ax.set_title(name)
        low, high = pairs.values[:5], pairs.values[-5:]
        rows.append(
            [
                name,
                _listed(low),
                _listed(high),
                int(pairs.n_products),
                f"{pairs.residuals.max():.0e}",
            ]
        )
        say(f"  {name:<7} lowest {_listed(low)}   highest {_listed(high)}")
    for ax in axes[1:]:
        ax.set_ylabel("")
    page.section("The spectrum on the way").figure(
        figure,
        "Density of the Hessian's eigenvalues by stochastic Lanczos quadrature at the start, in "
        "the middle and at "
        "the end of training. The bulk lies at zero; a few large eigenvalues stand out.",
    )
    page.table(["moment", "five lowest", "five highest", "products", "largest residual"], rows)
    return densities


def find_saddle(
    recipe: Recipe, objective: fc.Objective, data: Dataset, seed: int, progress: bool
) -> Array:
    """A critical point of the full network: a narrower one at rest, with zero units where it has
    none.
    """
    small = replace(recipe, hidden=(*recipe.hidden[:-1], NARROW)).objective(data)
    theta = small.model.init(seed=seed)
    theta = fc.minimize(
        small, theta, "adam", max_iter=40, batch_size=64, seed=seed, progress=progress
    ).x
    rest: Any = {"max_iter": 500, "gradient_tol": 1e-11, "progress": progress, "verdict": False}
    theta = fc.minimize(small, theta, SECOND, **rest).x
    *below, (W, b), (W_out, b_out) = small.model.unflatten(theta)
    missing = recipe.hidden[-1] - NARROW
    W, b = np.pad(W, ((0, missing), (0, 0))), np.pad(b, (0, missing))
    return objective.model.flatten([*below, (W, b), (np.pad(W_out, ((0, 0), (0, missing))), b_out)])


def leave(
    page: Report,
    objective: fc.Objective,
    theta: Array,
    point: CriticalPoint,
    progress: bool,
    say: Say,
) -> OptimizeResult | None:
    """Show the verdict on a saddle, follow its escape direction, and show that the loss falls."""
    for line in verdict_lines(point):
        say(line)
    page.verdict(point)
    if point.escape_direction is None:
        return None
    escaped = fc.escape(objective, theta, point.escape_direction)
    before, after = objective.value(theta), float(escaped.fun)
    further = fc.minimize(
        objective, escaped.x, SECOND, max_iter=300, progress=progress, verdict=False
    )
    sentence = (
        f"Along the escape direction the loss falls from {before:.6f} to {after:.6f}; "
        f"from there {SECOND} goes on down to {further.fun:.6f}."
    )
    say("  " + sentence)
    page.text(sentence).figure(
        along(objective, theta, escaped.x - theta),
        "The loss along the escape direction, what the second-order Taylor polynomial says of it, "
        "and the step taken.",
    )
    return escaped


def along(objective: fc.Objective, theta: Array, step: Array, ax: Any = None) -> Any:
    """Picture: loss and Taylor polynomial on the line through a critical point along a step."""
    ax = plots.new_axes(ax, figsize=(6.4, 3.6))
    length = float(np.linalg.norm(step))
    direction = step / length
    t = np.linspace(-0.5 * length, 1.5 * length, 101)
    quadratic = objective.taylor(theta)
    options: Any = {"log": False, "xlabel": "distance along the direction", "ylabel": "loss"}
    losses = [objective.value(theta + s * direction) for s in t]
    plots.curve(t, losses, ax, label="loss", **options)
    plots.curve(
        t, [quadratic(s * direction) for s in t], ax, label="second-order Taylor", **options
    )
    low, high = min(losses), max(losses)
    ax.set_ylim(low - 0.5 * (high - low), high + 0.1 * (high - low))
    plots.mark(ax, 0.0, objective.value(theta), "saddle", "saddle")
    plots.mark(ax, length, objective.value(theta + step), "not_critical", "after the step")
    return ax


def summary(
    densities: dict[str, SpectralDensity], objective: fc.Objective, theta: Array, step: Array
) -> Any:
    """Both pictures side by side: the spectrum at three moments, the way down from the saddle."""
    figure = plots.new_figure((11.0, 3.8))
    left, right = figure.subplots(1, 2)
    for (name, density), color in zip(densities.items(), (plots.SKY, plots.ORANGE, plots.BLUE)):
        plots.density(density, left, label=name, color=color)
    left.set_title("The Hessian's spectrum: start, middle and end of training")
    along(objective, theta, step, right).set_title("A saddle, and the way down")
    return figure


def _listed(values: Array) -> str:
    return " ".join(f"{x:.3g}" for x in values)

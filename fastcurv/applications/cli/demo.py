"""The demonstration that ``fastcurv demo`` runs, end to end on real data."""

from __future__ import annotations

import time
from collections.abc import Callable
from os import PathLike
from typing import Any, Literal

import numpy as np
from scipy.optimize import OptimizeResult

import fastcurv as fc

from ...common.protocols import Array
from ...common.runtime import raise_if_interrupted
from ...common.sentences import render_notes
from ...critical.report import CriticalPoint
from ...spectrum.density_curve import SpectralDensity
from .. import plots
from .output import CommandOutput, verdict_lines, write_figure_file
from .report import Report

Say = Callable[[str], None]

# method that continues after Adam until the gradient vanishes
REFINEMENT_METHOD: Literal["newton-cg"] = "newton-cg"
N_NARROW_UNITS = 4  # number of units in the last hidden layer of the narrower network
L2 = 1e-3  # weight decay of all networks of the demonstration
# mean and standard deviation of all pixels, which are integers from 0 to 16
PIXEL_MEAN, PIXEL_STD = 4.88, 6.02
TITLE = "Did training end at a minimum, or on a saddle?"
NETWORK_TEXT = (
    "A network with {n} parameters was trained on scikit-learn's handwritten digits, and its "
    "exact Hessian was examined during training."
)
NARROWER_NETWORK_TEXT = (
    f"A network with only {N_NARROW_UNITS} units in its last hidden layer was trained until its "
    "gradient vanished. The missing units were then added with zero weights: the outputs are the "
    "same and the gradient is still zero, so this is a critical point of the full network's loss."
)

PICTURE_TEXT = (
    "Left: density of the Hessian's eigenvalues by stochastic Lanczos quadrature at the start, in "
    "the middle and at the end of training. Right: the saddle, along its escape direction: the "
    "loss, its second-order Taylor polynomial, and the step taken."
)


def run_demo(
    out: str | PathLike[str] = "fastcurv-demo.html",
    *,
    picture: str | PathLike[str] | None = None,
    seed: int = 0,
    n_threads: int | None = None,
    quick: bool = False,
    progress: bool = True,
    say: Say | None = None,
) -> dict[str, Any]:
    """Train a network on digits, compute the spectrum at three stages of training, classify the
    end point, escape from a saddle, and write a page on all of this.

    Parameters
    ----------
    out : path
        File for the page.
    picture : path or None
        File for a picture of the spectra and the escape. If None, no picture is written.
    seed : int
        Seed of all random choices.
    n_threads : int or None
        Number of threads.
    quick : bool
        Use a smaller network, fewer samples and fewer probes, to take seconds instead of a minute
        or two.
    progress : bool
        Whether to show progress bars.
    say : callable or None
        Called with each line of output; by default lines go to standard output.

    Returns
    -------
    dict
        ``report`` (the path of the page), ``verdict`` (at the end of training), ``saddle`` (the
        verdict at the saddle) and ``escaped`` (the result of `fastcurv.escape`).
    """
    started, say = time.perf_counter(), say or CommandOutput().print_text
    fitted = load_digits(seed, quick)
    hidden = (10,) if quick else (32, 16)
    objective = digits_objective(hidden, fitted, n_threads)
    sizes = "-".join(map(str, objective.model.sizes))
    described = (
        f"{len(fitted[0])} digits; net {sizes}, tanh, {objective.n_params} parameters; cross "
        f"entropy, l2 {L2:g}"
    )
    say(described)
    moments, result = train_network(objective, seed, quick, progress, say)
    say("\nThe Hessian's spectrum during training")
    densities = compute_spectra(objective, moments, say, seed=seed, quick=quick, progress=progress)

    say("\nWhere training stopped")
    point = fc.classify(objective, result.x, rng=seed)
    say(verdict_lines(point))

    say("\nA saddle, and a descent from it")
    theta = find_saddle(hidden, objective, fitted, seed, progress)
    saddle = fc.classify(objective, theta, dense_below=0, rng=seed)
    say(verdict_lines(saddle))
    escaped, way = escape_saddle(objective, theta, saddle, progress)
    say(f"  {way}")

    page = Report(TITLE)
    page.subtitle = f"{NETWORK_TEXT.format(n=objective.n_params)} {described}."
    page.add_section("The verdict, and its evidence").add_verdict(point)
    page.add_section("Another point: a saddle, and a descent from it").add_text(
        NARROWER_NETWORK_TEXT
    )
    page.add_verdict(saddle).add_text(way)
    if escaped is not None:
        figure = plot_summary(densities, objective, theta, escaped.x - theta)
        page.add_figure(figure, PICTURE_TEXT)
        if picture is not None:
            write_figure_file(figure, picture)
    seconds = time.perf_counter() - started
    page.add_text(f"All of this took {seconds:.0f} seconds.")
    path = page.write(out)
    say(f"\n{seconds:.0f} s. The page: {path}")
    return {
        "report": path,
        "verdict": point,
        "saddle": saddle,
        "escaped": escaped,
    }


Rows = tuple[Array, Array]


def load_digits(seed: int, quick: bool) -> Rows:
    """Return the pixels and classes of scikit-learn's digits, or of a quarter of them."""
    from sklearn import datasets

    X, y = datasets.load_digits(return_X_y=True)
    some = np.random.default_rng(seed).permutation(len(y))[:: 4 if quick else 1]
    return (X[some] - PIXEL_MEAN) / PIXEL_STD, y[some]


def digits_objective(
    hidden: tuple[int, ...], rows: Rows, n_threads: int | None = None
) -> fc.Objective:
    """Return the objective of a network with the given hidden layers on the digits."""
    X, y = rows
    model = fc.MLP([X.shape[1], *hidden, 10], "tanh")
    return fc.Objective(model, X, y, "cross_entropy", l2=L2, n_threads=n_threads)


def train_network(
    objective: fc.Objective, seed: int, quick: bool, progress: bool, say: Say
) -> tuple[dict[str, Array], OptimizeResult]:
    """Train with Adam on mini-batches, then with a second-order method until the gradient vanishes.
    Return theta at three stages of training by name, and the last result. `say` is called with each
    line of output.
    """
    start = objective.model.init(rng=seed)
    options: Any = {"batch_size": 64, "rng": seed, "progress": progress}
    say(f"training: adam on mini-batches, then {REFINEMENT_METHOD} until the gradient vanishes")
    first = raise_if_interrupted(fc.minimize(objective, start, "adam", max_iter=2, **options))
    more = 20 if quick else 40
    adam = raise_if_interrupted(fc.minimize(objective, first.x, "adam", max_iter=more, **options))
    result = raise_if_interrupted(
        fc.minimize(objective, adam.x, REFINEMENT_METHOD, max_iter=300, progress=progress)
    )
    moments = {"start": start, "middle": first.x, "end": result.x}
    for name, theta in moments.items():
        say(f"  {name:<7} loss {objective.value(theta):.6f}")
    say(f"  {render_notes(result.notes, calls=False)}")
    return moments, result


def compute_spectra(
    objective: fc.Objective,
    moments: dict[str, Array],
    say: Say,
    *,
    seed: int,
    quick: bool,
    progress: bool,
) -> dict[str, SpectralDensity]:
    """Return the spectral density for each stage of training, as a dict by the name of the stage,
    and say its five lowest and five highest eigenvalues. `moments` holds theta by the name of the
    stage.
    """
    densities = {}
    for name, theta in moments.items():
        hessian = objective.hessian(theta)
        n_probes = 4 if quick else 10
        densities[name] = fc.spectral_density(hessian, n_probes=n_probes, n_steps=80, rng=seed)
        pairs = raise_if_interrupted(fc.eigsh(hessian, 10, "BE", rng=seed, progress=progress))
        say(f"  {name:<7} lowest  {_join_values(pairs.values[:5])}")
        say(f"  {'':<7} highest {_join_values(pairs.values[-5:])}")
    return densities


def find_saddle(
    hidden: tuple[int, ...], objective: fc.Objective, fitted: Rows, seed: int, progress: bool
) -> Array:
    """Return theta of a critical point of the network of `objective`, usually a saddle. A
    network with fewer units in the last hidden layer is trained until its gradient vanishes, and
    the missing units are added with zero weights.
    """
    small = digits_objective((*hidden[:-1], N_NARROW_UNITS), fitted)
    theta = small.model.init(rng=seed)
    first: Any = {"max_iter": 40, "batch_size": 64, "rng": seed, "progress": progress}
    theta = raise_if_interrupted(fc.minimize(small, theta, "adam", **first)).x
    rest: Any = {"max_iter": 500, "gradient_tol": 1e-11, "progress": progress, "verdict": False}
    theta = raise_if_interrupted(fc.minimize(small, theta, REFINEMENT_METHOD, **rest)).x
    *below, (W, b), (W_out, b_out) = small.model.unflatten(theta)
    missing = hidden[-1] - N_NARROW_UNITS
    W, b = np.pad(W, ((0, missing), (0, 0))), np.pad(b, (0, missing))
    return objective.model.flatten([*below, (W, b), (np.pad(W_out, ((0, 0), (0, missing))), b_out)])


def escape_saddle(
    objective: fc.Objective, theta: Array, point: CriticalPoint, progress: bool
) -> tuple[OptimizeResult | None, str]:
    """Follow a saddle's escape direction. Return the result of `fastcurv.escape`, or None without
    such a direction, and a sentence on the decrease of the loss.
    """
    if point.escape_direction is None:
        return None, "No direction of negative curvature was found."
    escaped = fc.escape(objective, theta, point.escape_direction)
    rest: Any = {"max_iter": 300, "progress": progress, "verdict": False}
    further = raise_if_interrupted(fc.minimize(objective, escaped.x, REFINEMENT_METHOD, **rest))
    return escaped, (
        f"Along the escape direction the loss falls from {objective.value(theta):.6f} to "
        f"{float(escaped.fun):.6f}; from there {REFINEMENT_METHOD} continues down to "
        f"{further.fun:.6f}."
    )


def plot_loss_along_step(objective: fc.Objective, theta: Array, step: Array, ax: Any = None) -> Any:
    """Plot the loss and its second-order Taylor polynomial along the line from a critical point
    theta in the direction of `step`. Return the Axes, which is `ax` if given.
    """
    ax = plots.new_axes(ax, figsize=(4.5, 3.0))
    length = float(np.linalg.norm(step))
    direction = step / length
    t = np.linspace(-0.5 * length, 1.5 * length, 101)
    H = objective.hessian(theta)
    losses = [objective.value(theta + s * direction) for s in t]
    quadratic = H.value + t * (H.gradient @ direction) + 0.5 * t**2 * H.quadratic_form(direction)
    lines = {"loss": losses, "second-order Taylor": quadratic}
    for label, values in lines.items():
        plots.curve(t, values, ax, label=label, log=False)
    ax.set(xlabel="distance along the escape direction", ylabel="loss")
    ax.set_title("A saddle, along its escape direction")
    low, high = min(losses), max(losses)
    ax.set_ylim(low - 0.5 * (high - low), high + 0.1 * (high - low))
    plots.mark(ax, 0.0, objective.value(theta), "saddle", "saddle")
    plots.mark(ax, length, objective.value(theta + step), "not_critical", "after the step")
    return ax


def plot_summary(
    densities: dict[str, SpectralDensity], objective: fc.Objective, theta: Array, step: Array
) -> Any:
    """Plot the spectrum at three stages of training and the escape from the saddle, side by side,
    and return the figure. `densities` holds a spectral density by the name of each stage, and
    ``theta + step`` is the point after the escape from theta.
    """
    figure = plots.new_figure((9.0, 3.8))
    left, right = figure.subplots(1, 2)
    for (name, density), color in zip(densities.items(), (plots.SKY, plots.ORANGE, plots.BLUE)):
        density.plot(left, label=name, color=color)
    left.set_title("The Hessian's spectrum in training")
    plot_loss_along_step(objective, theta, step, right)
    return figure


def _join_values(values: Array) -> str:
    return " ".join(f"{x:>9.3g}" for x in values)

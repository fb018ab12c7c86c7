"""The whole job, end to end, on real data: what ``fastcurv demo`` runs."""

import time

import numpy as np

import fastcurv as fc

from . import plots
from .commands import describe, extremes, print_verdict, state
from .report import Report
from .runs import Recipe


def run(out="fastcurv-demo.html", *, seed=0, n_threads=None, quick=False, progress=True):
    """Train on digits, look at the curvature on the way, judge the end, leave a saddle.

    Parameters
    ----------
    out : path
        The report to write.
    seed : int
    n_threads : int or None
    quick : bool
        A smaller net, fewer samples, fewer probes: seconds instead of a minute or two.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    dict
        ``report`` (its path), ``verdict``, ``saddle``, ``escaped`` and ``accuracy`` on held-out samples.
    """
    started = time.perf_counter()
    recipe = Recipe("digits", (10,) if quick else (32, 16), "tanh", l2=1e-3, seed=seed)
    data = recipe.dataset()
    objective = recipe.objective(data, n_threads)
    if quick:
        objective = objective.batch(np.arange(0, len(data.X), 4))
    page = Report("Where did training stop?")
    print(describe(objective, data))

    moments = train(objective, data, seed, quick, progress)
    at_end = moments["end"]
    page.text(
        f"A network with {objective.n_params} parameters was trained on scikit-learn's handwritten digits, and its "
        "exact Hessian was looked at on the way. " + describe(objective, data) + "."
    )
    page.section("Training").table(["moment", "state"], [[k, state(objective, t, data)] for k, t in moments.items()])

    print("\nThe Hessian's spectrum on the way")
    spectra(page, objective, moments, seed, quick, progress)

    print("\nWhere training stopped")
    point = fc.classify(objective, at_end, seed=seed)
    print_verdict(point)
    page.section("The verdict at the end").verdict(point)

    print("\nA saddle, and the way down from it")
    saddle, escaped = leave_saddle(page, objective, seed, progress)

    seconds = time.perf_counter() - started
    page.text(f"All of this took {seconds:.0f} seconds.")
    path = page.write(out)
    print(f"\n{seconds:.0f} s. The report: {path}")
    accuracy = data.score(objective.model.predict(at_end, data.X_test), data.y_test)
    return {"report": path, "verdict": point, "saddle": saddle, "escaped": escaped, "accuracy": accuracy}


def train(objective, data, seed, quick, progress):
    """Adam on mini-batches, then Newton-CG until the gradient is gone; three moments of it."""
    theta = objective.model.init(seed=seed)
    moments = {"start": theta}
    options = {"batch_size": 64, "seed": seed, "progress": progress}
    print(f"  start      {state(objective, theta, data)}")
    theta = fc.minimize(objective, theta, "adam", max_iter=2, **options).x
    moments["middle"] = theta
    print(f"  middle     {state(objective, theta, data)}")
    theta = fc.minimize(objective, theta, "adam", max_iter=20 if quick else 40, **options).x
    print(f"  adam       {state(objective, theta, data)}")
    result = fc.minimize(objective, theta, "newton-cg", max_iter=300, progress=progress)
    moments["end"] = result.x
    print(f"  newton-cg  {state(objective, result.x, data)}")
    print(f"  {result.message}")
    return moments


def spectra(page, objective, moments, seed, quick, progress):
    """Density and extreme eigenvalues at each moment, as one picture and one table."""
    figure = plots.new_figure((9.0, 3.2))
    rows = []
    axes = figure.subplots(1, len(moments), sharey=True)
    for ax, (name, theta) in zip(axes, moments.items()):
        hessian = objective.hessian(theta)
        density = fc.spectral_density(hessian, n_probes=4 if quick else 10, n_steps=80, seed=seed)
        pairs = extremes(hessian, 5, seed, progress)
        plots.density(density, ax)
        ax.set_title(name)
        low, high = pairs.values[:5], pairs.values[-5:]
        rows.append([name, _listed(low), _listed(high), int(pairs.n_products), f"{pairs.residuals.max():.0e}"])
        print(f"  {name:<7} lowest {_listed(low)}   highest {_listed(high)}")
    for ax in axes[1:]:
        ax.set_ylabel("")
    page.section("The spectrum on the way").figure(
        figure,
        "Density of the Hessian's eigenvalues by stochastic Lanczos quadrature at the start, in the middle and at "
        "the end of training. The bulk lies at zero; a few large eigenvalues stand out.",
    )
    page.table(["moment", "five lowest", "five highest", "products", "largest residual"], rows)


def leave_saddle(page, objective, seed, progress):
    """Find a saddle, follow its most negative direction, and show that the loss falls."""
    theta, point = find_saddle(objective, seed, progress)
    print_verdict(point)
    escaped = fc.escape(objective, theta)
    before, after = objective.value(theta), float(escaped.fun)
    further = fc.minimize(objective, escaped.x, "newton-cg", max_iter=300, progress=progress)
    sentence = (
        f"Along the most negative direction the loss falls from {before:.6f} to {after:.6f}; "
        f"from there Newton-CG goes on down to {further.fun:.6f}."
    )
    print("  " + sentence)
    page.section("A saddle, and the way down").verdict(point)
    page.text(sentence)
    page.figure(
        along(objective, theta, point.escape_direction, escaped.x - theta),
        "The loss along the escape direction, what the second-order Taylor polynomial says of it, and the step taken.",
    )
    return point, escaped


def find_saddle(objective, seed, progress, attempts=20):
    """A critical point that `classify` proves a saddle: descend on the gradient's norm from young networks."""
    for attempt in range(attempts):
        theta = objective.model.init(seed=seed + attempt)
        theta = fc.minimize(objective, theta, "adam", max_iter=1, batch_size=64, seed=seed + attempt).x
        found = fc.find_critical_point(objective, theta)
        point = fc.classify(objective, found.x, seed=seed)
        if point.kind == "saddle":
            return found.x, point
    raise RuntimeError(f"no saddle among the critical points found from {attempts} starts")


def along(objective, theta, direction, step):
    """Picture: loss and Taylor polynomial on a line through a critical point."""
    direction = direction * (1.0 if direction @ step >= 0 else -1.0)
    length = max(np.linalg.norm(step), 1e-3)
    t = np.linspace(-0.5 * length, 1.5 * length, 101)
    model = objective.taylor(theta)
    ax = plots.new_axes(figsize=(6.4, 3.6))
    options = {"log": False, "xlabel": "distance along the direction", "ylabel": "loss"}
    plots.curve(t, [objective.value(theta + s * direction) for s in t], ax, label="loss", **options)
    plots.curve(t, [model(s * direction) for s in t], ax, label="second-order Taylor", **options)
    plots.mark(ax, 0.0, objective.value(theta), "saddle", "saddle")
    plots.mark(ax, length, objective.value(theta + length * direction), "not_critical", "after the step")
    return ax


def _listed(values):
    return " ".join(f"{x:.3g}" for x in values)

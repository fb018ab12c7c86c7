"""The subcommands. Each returns its exit status, or None for 0."""

from __future__ import annotations

import itertools
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import fastcurv as fc

from ..common.checks import check_choice
from ..common.files import refuse_device
from ..common.optional import optional
from ..common.runtime import unbroken
from ..optimize.minimize import METHODS, STOCHASTIC
from ..plots.spectrum import DENSE_BELOW, SpectrumDisplay, ends, every_pair, extremes
from ..spectrum.density import density_of
from ..spectrum.density_curve import counted
from ..spectrum.results import left_open
from ..structure.tables import SUITS
from .data import Dataset, absolute
from .models import is_model, on_cluster, open_model
from .output import (
    PAGES,
    Output,
    check_out,
    check_picture,
    describe,
    description,
    pair_lines,
    standing,
    state,
    told,
    verdict_facts,
    verdict_lines,
)
from .recipe import FORMATS, RECORDS, Recipe, SavedRun, load_run, save_run

TRAINED = "theta.safetensors"  # the file that `train` writes by default


def demo(args: Namespace, out: Output) -> None:
    """Run the demonstration on real data."""
    from .demo import run

    check_out(args.out, kinds=PAGES)
    check_picture(args.picture, "picture")
    with optional("the data and pictures of the demo", "demo"):
        import matplotlib.figure  # noqa: F401
        import sklearn.datasets  # noqa: F401
    out.working = True
    facts = run(
        args.out,
        picture=args.picture,
        seed=args.seed,
        n_threads=args.threads,
        quick=args.quick,
        progress=args.progress,
        say=out.say,
    )
    out.fact(
        report=facts["report"],
        accuracy=facts["accuracy"],
        verdict=verdict_facts(facts["verdict"]),
        saddle=verdict_facts(facts["saddle"]),
        loss_at_saddle=facts["loss_at_saddle"],
        loss_after_escape=facts["loss_after_escape"],
        failed=facts["failed"].to_dict()["causes"],
    )


def train(args: Namespace, out: Output) -> int:
    """Train a network, polish it, and save it."""
    if args.out is None and Path(TRAINED).exists():
        raise ValueError(
            f"{TRAINED} is there already, from a run before; wanted --out NAME, or "
            f"--out {TRAINED} to replace it"
        )
    place = TRAINED if args.out is None else args.out
    check_out(place, kinds=FORMATS)
    check_choice(args.method, tuple(METHODS), "method")
    check_choice(args.polish, (*METHODS, "none"), "polish")
    names = ("hidden", "activation", "residual", "batch_norm", "dtype", "l2", "seed", "loss")
    recipe = Recipe(
        args.data,
        **{name: getattr(args, name) for name in (*names, "target", "raw", "held_out")},
    )
    data = recipe.dataset()
    recipe = replace(recipe, data=absolute(args.data), loss=data.loss, digest=data.digest)
    objective = on_cluster(args.dask, recipe.objective(data, args.threads), recipe.dataset)
    out.working = True
    theta = objective.model.init(seed=args.seed)
    out.say(describe(objective, data))
    out.say(f"  start         {state(objective, theta, data)}")
    out.fact(**description(objective, data))
    results: list[tuple[str, Any]] = []
    best: tuple[Any, float] = (None, np.inf)

    def keep(intermediate_result: Any) -> None:
        nonlocal best
        if intermediate_result.fun < best[1]:
            best = intermediate_result.x, intermediate_result.fun

    def save(theta: np.ndarray) -> None:
        counts = tuple((name, len(r.history["loss"])) for name, r in results)
        history = joined([r for _, r in results])
        out.fact(out=save_run(place, recipe, objective.model, theta, history, counts))

    first = {"max_iter": args.epochs, "seed": args.seed, "verdict": args.polish == "none"}
    if args.method in STOCHASTIC:
        first["batch_size"] = args.batch_size
    common = {"max_time": args.max_time, "progress": args.progress, "callback": keep}
    try:
        for method, options in ((args.method, first), (args.polish, {"max_iter": args.max_steps})):
            if method != "none" and options["max_iter"]:
                results.append((method, fc.minimize(objective, theta, method, **options, **common)))
                theta = unbroken(results[-1][1]).x
                out.say(f"  {method:<13} {state(objective, theta, data)}")
    except BaseException:  # lost workers, no memory, Ctrl-C: save the best point found
        if best[0] is not None:
            save(best[0])
        raise
    save(theta)
    asked, end = args.polish != "none", results[-1][1] if results else None
    if asked and end is not None:
        out.say(f"  {told(end)}")
    out.say(f"saved {out.facts['out']}")
    out.fact(**standing(objective, theta, data))
    if end is not None:
        out.fact(success=bool(end.success), kind=end.kind, message=told(end))
    return 0 if not asked or (end is not None and end.success) else 1


def joined(results: list[Any]) -> dict[str, np.ndarray]:
    """Concatenate the records of all methods, with times that go on from one method to the next."""
    found: dict[str, np.ndarray] = {}
    for r in results:
        new = {name: np.asarray(r.history[name], dtype=float) for name in RECORDS}
        new["time"] += found["time"][-1] if found else 0.0
        found = {name: np.append(found.get(name, ()), new[name]) for name in RECORDS}
    return found


def spectrum(args: Namespace, out: Output) -> int:
    """Print extreme eigenvalues with their residuals, and the density."""
    check_picture(args.figure)
    data, objective, saved = open_run(args, out)
    hessian = objective.hessian(saved.theta)
    out.say(describe(objective, data))
    dense = hessian.shape[0] <= DENSE_BELOW
    known = every_pair(hessian) if dense else extremes(hessian, args.k, args.seed, args.progress)
    pairs = ends(known, args.k) if dense else known
    out.say(pair_lines(pairs))
    density = fc.spectral_density(
        hessian,
        n_probes=args.probes,
        n_steps=args.steps,
        seed=args.seed,
        progress=args.progress,
    )
    every = density_of(known.values, hessian.dtype) if dense else density
    negative = every.mass(high=0.0)
    made = "from all eigenvalues" if density.exact else f"{args.probes} probes x {args.steps} steps"
    out.say(f"density: {made}; {counted(every)}")
    picture = SpectrumDisplay(every, eigenvalues=pairs.values)
    out.fact(
        **description(objective, data),
        eigenvalues=pairs.values,
        residuals=pairs.residuals,
        converged=pairs.converged,
        unseen=pairs.unseen,
        copies=left_open(pairs) or None,
        n_products=pairs.n_products + density.n_products,
        grid=density.grid,
        density=density.density,
        stderr=density.stderr,
        negative_mass=negative.estimate,
        negative_mass_stderr=negative.stderr,
    )
    out.picture(picture, args.figure)
    return 0 if np.all(pairs.converged) else 1


def classify(args: Namespace, out: Output) -> int:
    """Print the verdict and its evidence."""
    data, objective, saved = open_run(args, out)
    out.say(describe(objective, data))
    point = judge(objective, saved.theta, data, args, out)
    return int(args.certified and not point.certified)


def diagnose(args: Namespace, out: Output) -> None:
    """Print why training fails, most likely cause first, and what helps."""
    check_picture(args.figure)
    data, objective, saved = open_run(args, out)
    out.say(describe(objective, data))
    found = fc.diagnose(
        objective, saved.theta, saved.told, compare=args.compare, max_time=args.max_time
    )
    out.say(repr(found))
    out.fact(**description(objective, data), **found.to_dict())
    out.picture(found, args.figure)


def report(args: Namespace, out: Output) -> int:
    """Write one page with training, verdict, spectrum, landscape, layers and cost."""
    from .page import run_page

    check_out(args.out, kinds=PAGES)
    data, objective, saved = open_run(args, out)
    point = judge(objective, saved.theta, data, args, out)
    path = run_page(objective, saved, data, point, args).write(args.out)
    out.say(f"report: {path}")
    out.fact(report=path)
    return int(args.certified and not point.certified)


def bench(args: Namespace, out: Output) -> None:
    """Time fastcurv alone. The values of the data do not affect the times."""
    for dtype in args.dtype:
        bench_objective(args, dtype)  # raises on bad arguments before any line is printed
    tell_versions(out)
    out.say()
    out.say(
        f"{'dtype':<9}{'gradient ms':>13}{'product ms':>12}{'product/gradient':>18}"
        f"{'of FMA peak':>13}"
    )
    rows = [bench_row(args, dtype) for dtype in args.dtype]
    for row in rows:
        out.say(
            f"{row['dtype']:<9}{row['gradient'] * 1e3:>13.4g}{row['product'] * 1e3:>12.4g}"
            f"{row['product'] / row['gradient']:>18.2f}{row['share_of_peak']:>13.0%}"
        )
    out.fact(sizes=args.sizes, samples=args.samples, rows=rows)


def bench_row(args: Namespace, dtype: str) -> dict[str, Any]:
    """Return the seconds of a gradient and of a product, and the product's share of the FMA
    peak.
    """
    objective, theta = bench_objective(args, dtype)
    v = np.random.default_rng(1).standard_normal(theta.size).astype(dtype)
    hessian = objective.hessian(theta)
    points = itertools.cycle([theta, 0.99 * theta])  # so that no call can reuse the last result
    product = best_time(lambda: hessian @ v)
    gradient = best_time(lambda: objective.value_and_gradient(next(points)))
    layers = [m * k for k, m in zip(args.sizes, args.sizes[1:])]
    flops = 2 * args.samples * (2 * layers[0] + 6 * sum(layers[1:]))
    peak = fc._engine.fma_peak(dtype, args.threads or fc._engine.default_threads())
    return {
        "dtype": dtype,
        "gradient": gradient,
        "product": product,
        "share_of_peak": flops / product / peak,
    }


def bench_objective(args: Namespace, dtype: str) -> tuple[Any, np.ndarray]:
    """Return the objective to time, with random samples of random classes, and a random start."""
    rng = np.random.default_rng(0)
    model = fc.MLP(args.sizes, activation=args.activation, dtype=dtype)
    X = rng.standard_normal((args.samples, args.sizes[0]))
    y = rng.integers(args.sizes[-1], size=args.samples)
    objective = fc.Objective(model, X, y, loss=SUITS["classes"], n_threads=args.threads)
    return objective, model.init(seed=0)


def info(args: Namespace, out: Output) -> None:
    """Print versions and kernels."""
    tell_versions(out)


# Shared by several subcommands.


def open_run(args: Namespace, out: Output) -> tuple[Any, Any, SavedRun]:
    """Return the data, the objective and the saved run, or those of another program's network,
    after validating the input.
    """
    path = Path(args.theta).expanduser()
    refuse_device(path)
    if path.is_file() and is_model(path):
        data, objective, theta = open_model(path, args)
        out.working = True
        return data, objective, SavedRun(None, theta)
    if args.activation is not None:
        raise ValueError(f"--activation is given with {path}, which says its own")
    instead = {name: getattr(args, name) for name in ("data", "loss", "l2", "target", "dtype")}
    saved = load_run(path, **instead)
    recipe = saved.recipe
    assert recipe is not None
    data = recipe.dataset()
    if recipe.digest not in ("", data.digest):
        raise ValueError(
            f"{recipe.data} holds other numbers than {args.theta} was trained on; "
            "give --data to use it all the same"
        )
    objective = recipe.objective(data, args.threads)
    if saved.theta.shape != (objective.n_params,):
        raise ValueError(
            f"{args.theta} holds {saved.theta.size} parameters, a net for {data.name} has "
            f"{objective.n_params}: give the data it was trained on"
        )
    there = replace(recipe, data=absolute(recipe.data))
    objective = on_cluster(getattr(args, "dask", None), objective, there.dataset)
    out.working = True
    return data, objective, saved


def judge(
    objective: Any, theta: np.ndarray, data: Dataset, args: Namespace, out: Output
) -> fc.CriticalPoint:
    """Return the verdict on a point, after printing it with its evidence."""
    point = fc.classify(
        objective,
        theta,
        gradient_tol=args.gradient_tol,
        curvature_tol=args.curvature_tol,
        failure_probability=args.failure_probability,
        max_products=args.max_products,
        max_time=args.max_time,
        seed=args.seed,
        progress=args.progress,
    )
    out.say(verdict_lines(point))
    out.fact(**(description(objective, data) | verdict_facts(point)))
    return point


def tell_versions(out: Output) -> None:
    """Print what `fastcurv.show_versions` tells."""
    facts = fc.show_versions("dict")
    for name, value in facts.items():
        out.say(f"{name:>10}: {value}")
    out.fact(**facts)


def best_time(call: Callable[[], Any], seconds: float = 1.0) -> float:
    """Return the shortest of the timings that fit into ``seconds``."""
    call()
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best

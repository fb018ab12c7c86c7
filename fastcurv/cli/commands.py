"""What each subcommand does.

Printing happens here and in `fastcurv.demo`, nowhere else in the package.
"""

import time
from dataclasses import fields

import numpy as np

import fastcurv as fc

from .. import plots
from .output import describe, extremes, iter_points, print_pairs, print_verdict, state
from .recipe import Recipe, load_run, save_run
from .report import Report


def demo(args):
    """The whole job on real data."""
    from .demo import run

    run(
        args.out,
        picture=args.picture,
        seed=args.seed,
        n_threads=args.threads,
        quick=args.quick,
        progress=not args.quiet,
    )


def train(args):
    """Train, polish, save."""
    recipe = Recipe(**{field.name: getattr(args, field.name) for field in fields(Recipe)})
    data = recipe.dataset()
    objective = recipe.objective(data, args.threads)
    theta = objective.model.init(seed=args.seed)
    print(describe(objective, data))
    print(f"  start         {state(objective, theta, data)}")
    if args.epochs > 0:
        batch = {"batch_size": args.batch_size} if args.method in BATCHED else {}
        first = fc.minimize(
            objective,
            theta,
            args.method,
            max_iter=args.epochs,
            seed=args.seed,
            progress=not args.quiet,
            **batch,
        )
        theta = first.x
        print(f"  {args.method:<13} {state(objective, theta, data)}")
    if args.polish != "none":
        last = fc.minimize(
            objective, theta, args.polish, max_iter=args.max_steps, progress=not args.quiet
        )
        theta = last.x
        print(f"  {args.polish:<13} {state(objective, theta, data)}")
        print(f"  {last.message}")
    print(f"saved {save_run(args.out, recipe, theta)}")


BATCHED = ("sgd", "momentum", "nesterov", "rmsprop", "adam")


def spectrum(args):
    """Extreme eigenvalues with their residuals, and the density."""
    data, objective, theta = open_run(args)
    hessian = objective.hessian(theta)
    pairs = extremes(hessian, args.k, args.seed, not args.quiet)
    print(describe(objective, data))
    print_pairs(pairs)
    density = fc.spectral_density(hessian, n_probes=args.probes, n_steps=args.steps, seed=args.seed)
    negative = density.mass(high=0.0)
    print(
        f"density: {args.probes} probes x {args.steps} steps; "
        f"{negative.estimate:.1%} +- {negative.stderr:.1%} of its mass is negative"
    )
    if args.figure:
        axes = plots.density(density)
        axes.figure.savefig(args.figure, dpi=160)
        print(f"picture: {args.figure}")


def classify(args):
    """The verdict and its evidence."""
    data, objective, theta = open_run(args)
    print(describe(objective, data))
    print_verdict(judge(objective, theta, args))


def report(args):
    """One page with accuracy, spectrum and verdict."""
    data, objective, theta = open_run(args)
    hessian = objective.hessian(theta)
    pairs = extremes(hessian, 5, args.seed, not args.quiet)
    density = fc.spectral_density(hessian, n_probes=args.probes, n_steps=args.steps, seed=args.seed)
    point = judge(objective, theta, args)
    page = Report(f"Curvature of a network trained on {data.name}")
    page.text(describe(objective, data)).text(state(objective, theta, data))
    page.section("Verdict").verdict(point)
    page.section("Spectrum").figure(
        plots.density(density), f"Density of the Hessian's {objective.n_params} eigenvalues."
    )
    page.table(["eigenvalue", "residual"], zip(pairs.values, pairs.residuals))
    print_verdict(point)
    print(f"report: {page.write(args.out)}")


def bench(args):
    """Times of fastcurv alone; nothing here depends on the numbers in the data."""
    fc.show_config()
    print(
        f"\n{'dtype':<9}{'gradient ms':>13}{'product ms':>12}{'product/gradient':>18}{'of FMA peak':>13}"
    )
    for dtype in args.dtype:
        rng = np.random.default_rng(0)
        model = fc.MLP(args.sizes, activation=args.activation, dtype=dtype)
        X = rng.standard_normal((args.samples, args.sizes[0]))
        y = rng.integers(args.sizes[-1], size=args.samples)
        objective = fc.Objective(model, X, y, loss="cross_entropy", n_threads=args.threads)
        theta = model.init(seed=0)
        v = rng.standard_normal(model.n_params).astype(dtype)
        hessian = objective.hessian(theta)
        points = iter_points(theta)
        product = best_time(lambda: hessian @ v)
        gradient = best_time(lambda: objective.value_and_gradient(next(points)))
        layers = [m * k for k, m in zip(args.sizes, args.sizes[1:])]
        flops = 2 * args.samples * (2 * layers[0] + 6 * sum(layers[1:]))
        share = (
            flops
            / product
            / fc._engine.fma_peak(dtype, args.threads or fc._engine.default_threads())
        )
        ratio = product / gradient
        print(
            f"{dtype:<9}{gradient * 1e3:>13.4g}{product * 1e3:>12.4g}{ratio:>18.2f}{share:>13.0%}"
        )


def info(args):
    """Versions and kernels."""
    fc.show_config()
    fc.show_versions()


# What several of them share.


def open_run(args):
    """The data, the objective and the parameters of a saved run."""
    recipe, theta = load_run(args.theta, args.data)
    data = recipe.dataset()
    objective = recipe.objective(data, args.threads)
    if theta.shape != (objective.n_params,):
        raise ValueError(
            f"{args.theta} holds {theta.size} parameters, a net for {data.name} has "
            f"{objective.n_params}: "
            "give the data it was trained on"
        )
    return data, objective, theta


def judge(objective, theta, args):
    return fc.classify(
        objective,
        theta,
        gradient_tol=args.gradient_tol,
        curvature_tol=args.curvature_tol,
        failure_probability=args.failure_probability,
        max_products=args.max_products,
        seed=args.seed,
    )


def best_time(call, seconds=1.0):
    """The shortest of the timings that fit into ``seconds``."""
    call()
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best

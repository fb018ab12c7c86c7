"""Error of fits whose new rows are chosen by `next_rows` and at random, on laws of a few inputs.

    python benchmarks/next_rows.py [--seeds 8] [--figure docs/next-rows.svg]

Each run begins with 40 random rows of 500 candidates and adds 10 rows eight times. The networks
have one hidden layer of 6 units. After each stage, three new fits with ``alpha="evidence"`` and the
last fit, continued, are compared by the errors of rows left out (for classes, by the evidence), and
the best is kept, for chosen and for random rows alike. The error is that on 1000 new rows, without
noise. For each law, the first number is the fraction of new rows that choosing saves for the error
that random rows reach at the end, and the second the largest ratio of the errors of chosen and
random rows at one stage, in the mean over seeds.

    python benchmarks/next_rows.py --domain

prints how many rows `return_domain=True` marks among new rows of the same distribution and among
rows twice as wide, and the ratio of the errors of marked and unmarked rows there.
"""

from __future__ import annotations

import copy
import time
import warnings

import command
import numpy as np

import fastcurv as fc

N_START, N_STEP, N_STAGES, N_CANDIDATES = 40, 10, 8, 500


def uniform(rng, n, d):
    return rng.uniform(-1, 1, (n, d))


def skewed(rng, n, d):
    return rng.exponential(0.5, (n, d)) - 0.5


# name: (number of inputs, draw of inputs, law, standard deviation of the noise)
LAWS = {
    "smooth, 3 inputs": (3, uniform, lambda x: np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2], 0.02),
    "steep": (2, uniform, lambda x: np.tanh(6 * (x[:, 0] + 0.5 * x[:, 1])), 0.02),
    "periodic": (2, uniform, lambda x: np.sin(4 * x[:, 0]) * np.cos(2 * x[:, 1]), 0.03),
    "skewed inputs": (4, skewed, lambda x: x[:, 0] ** 2 + np.sin(2 * x[:, 1]) - x[:, 2], 0.05),
    "10 inputs": (10, uniform, lambda x: np.sin(x[:, :3].sum(axis=1)) + x[:, 3] * x[:, 4], 0.02),
    "noise of 30%": (3, uniform, lambda x: np.exp(x[:, 0]) - x[:, 1] ** 2 + x[:, 2], 0.25),
    "growing noise": (
        3, uniform, lambda x: x[:, 0] + np.cos(3 * x[:, 1]),
        lambda x: 0.01 + 0.08 * np.abs(x[:, 0]),
    ),
    "two outputs": (
        3, uniform,
        lambda x: np.stack([np.sin(2 * x[:, 0]) + x[:, 1], 5 * x[:, 1] * x[:, 2]], axis=1), 0.03,
    ),
    "5 inputs, product": (5, uniform, lambda x: np.sin(2 * x[:, 0] * x[:, 1]) + x[:, 2], 0.02),
    "classes": (2, uniform, lambda x: (x[:, 1] > np.sin(3 * x[:, 0]) / 2).astype(int), None),
}  # fmt: skip


def errors(name, seed, choose):
    """Return the errors (N_STAGES + 1,) and the CPU seconds of a choice and of a fit."""
    d, draw, law, noise = LAWS[name]
    rng = np.random.default_rng(seed)
    pool, new = draw(rng, N_CANDIDATES, d), draw(rng, 1000, d)
    y = law(pool)
    if noise is not None:
        scale = noise(pool) if callable(noise) else np.full(len(pool), noise)
        y = y + scale.reshape(-1, *[1] * (y.ndim - 1)) * rng.standard_normal(y.shape)
    known = list(range(N_START))
    found, seconds = [], []
    net = None
    for stage in range(N_STAGES + 1):
        began = time.process_time()
        net = fit(pool[known], y[known], noise is None, net)
        fitted = time.process_time()
        truth = law(new)
        if noise is None:
            found.append(float(np.mean(net.predict(new) != truth)))
        else:
            residuals = (net.predict(new) - truth) / np.std(truth, axis=0)
            found.append(float(np.sqrt(np.mean(residuals**2))))
        if stage == N_STAGES:
            break
        rest = np.setdiff1d(np.arange(N_CANDIDATES), known)
        began_choice = time.process_time()
        picks = net.next_rows(pool[rest], N_STEP).indices if choose else rng.permutation(len(rest))
        seconds.append((time.process_time() - began_choice, fitted - began))
        known += rest[picks[:N_STEP]].tolist()
    return np.array(found), np.median(seconds, axis=0)


def fit(X, y, classes, last):
    """Return the best fit of three starts and of `last`, the fit of the previous stage, continued
    with its decay. Single fits may end in minima that predict badly, whatever the rows.
    """
    estimator = fc.MLPClassifier if classes else fc.MLPRegressor
    fits = []
    for start in range(3):
        net = estimator((6,), "tanh", alpha="evidence", random_state=start)
        fits.append(net.fit(X, y))
    if last is not None:
        continued = copy.deepcopy(last).set_params(alpha=last.alpha_, warm_start=True)
        fits.append(continued.fit(X, y))
    return min(fits, key=lambda net: badness(net, X, y, classes))


def badness(net, X, y, classes):
    """Return the mean square error of the rows, each left out of the linearised network, or minus
    the evidence for classes.
    """
    post = fc.laplace(net.objective(X, y), net.theta_)
    if classes:
        return -post.log_evidence
    roots = np.concatenate(list(post.information_roots(X)))
    leverages, axes = np.linalg.eigh(roots @ roots.transpose(0, 2, 1))
    residuals = (net.predict(X) - y).reshape(len(X), -1) / net.y_scale_
    along = np.einsum("nji,nj->ni", axes, residuals) / (1 - np.minimum(leverages, 0.999))
    errors = np.einsum("nij,nj->ni", axes, along) * net.y_scale_ / np.std(y, axis=0)
    return float(np.mean(errors**2))


def measure_domain(name, seeds):
    """Print and return the false alarms of a law, the fraction of rows that are marked twice as
    wide, and the ratio of the errors of marked and other rows.
    """
    d, draw, law, noise = LAWS[name]
    alarms, outside, errors = [], [], []
    for seed in range(seeds):
        rng = np.random.default_rng(100 + seed)
        X = draw(rng, 100, d)
        y = law(X)
        net = fc.MLPRegressor((6,), "tanh", alpha="evidence", random_state=0)
        net.fit(X, y + noise * rng.standard_normal(y.shape))
        alarms.append(np.mean(~net.predict(draw(rng, 1000, d), return_domain=True)[1]))
        wide = 2 * draw(rng, 1000, d)
        prediction, inside = net.predict(wide, return_domain=True)
        squares = ((prediction - law(wide)) ** 2).reshape(1000, -1).sum(axis=1)
        outside.append(np.mean(~inside))
        errors.append([np.sqrt(squares[mask].mean()) for mask in (~inside, inside)])
    out, within = np.nanmean(errors, axis=0)
    print(
        f"{name:<20} false alarms {np.mean(alarms):5.1%}; twice as wide: {np.mean(outside):4.0%} "
        f"marked, with {out / within:.1f} times the error",
        flush=True,
    )
    return {"false alarms": np.mean(alarms), "marked": np.mean(outside), "ratio": out / within}


def rows_saved(chosen, drawn):
    """Return the fraction of new rows that choosing saves for the last error of random rows."""
    added = N_STEP * np.arange(N_STAGES + 1)
    below = np.flatnonzero(chosen <= drawn[-1])
    if not len(below):
        return 0.0
    i = int(below[0])
    if i == 0:
        return 1.0
    share = (chosen[i - 1] - drawn[-1]) / (chosen[i - 1] - chosen[i])
    return float(1 - (added[i - 1] + share * N_STEP) / added[-1])


def main():
    parser = command.parser(__doc__)
    command.add_names_option(parser, "--laws", LAWS)
    parser.add_argument("--seeds", type=int, default=8, help="runs for each law (default 8)")
    parser.add_argument("--figure", metavar="FILE", help="draw the errors of the first five laws")
    parser.add_argument("--domain", action="store_true", help="measure the domain of fits instead")
    args = parser.parse_args()
    with command.run(args) as numbers:
        warnings.simplefilter("ignore")
        if args.domain:
            for name in args.laws:
                command.begin_step(name)
                if isinstance(LAWS[name][3], float):
                    numbers[name] = measure_domain(name, args.seeds)
            return
        curves = {}
        for name in args.laws:
            command.begin_step(name)
            runs = [
                [errors(name, seed, way) for seed in range(args.seeds)] for way in (True, False)
            ]
            chosen, drawn = (np.mean([run[0] for run in way], axis=0) for way in runs)
            choice, fitted = np.median([run[1] for run in runs[0]], axis=0)
            curves[name] = chosen, drawn
            saved, worst = rows_saved(chosen, drawn), max(chosen / drawn)
            numbers[name] = {"saved": saved, "worst": worst, "chosen": chosen, "random": drawn}
            print(
                f"{name:<20} saves {saved:4.0%} of the rows, worst stage {worst:.2f}, error at the "
                f"end {chosen[-1]:.4f} chosen, {drawn[-1]:.4f} random; choice {1e3 * choice:.0f} "
                f"ms, fit {1e3 * fitted:.0f} ms",
                flush=True,
            )
        median = np.median([row["saved"] for row in numbers.values()])
        print(f"median over {len(curves)} laws: {median:.0%} of the new rows saved")
        if args.figure:
            draw_figure(curves, args.figure)


def draw_figure(curves, path):
    """Draw the errors against the number of rows, one panel for each of the first five laws."""
    from fastcurv import plots

    figure = plots.new_figure((10, 2.4))
    rows = N_START + N_STEP * np.arange(N_STAGES + 1)
    for ax, (name, (chosen, drawn)) in zip(figure.subplots(1, 5), curves.items()):
        ax.plot(rows, drawn, color=plots.GREY, label="random")
        ax.plot(rows, chosen, color=plots.BLUE, label="chosen")
        ax.set_yscale("log")
        ax.set_title(name, fontsize=9)
        ax.set_xlabel("rows")
    figure.axes[0].set_ylabel("error")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main()

"""Optimisers side by side at equal wall time: second order against Adam tuned over a grid, on real
data.

    python benchmarks/optimisers.py          # digits: 8 s a run, 10 seeds; at most 16 minutes
    python benchmarks/optimisers.py patches  # autoencoder of image patches: 60 s a run, 8 minutes
    python benchmarks/optimisers.py --quick  # either one in a minute, to see that it works

digits: 64-32-16-10, tanh, cross entropy, l2 1e-4, all 1797 samples, float64. Adam's learning rate
and batch size are searched over a grid at the full budget on seeds of their own, the best pair is
kept. Then every method runs from the same starts; seeds are the outer loop, so that a noisy
neighbour hits all alike. Losses are the whole objective's at the point returned, which for Adam is
the best one recorded. Ctrl-C ends the comparison and prints the table of what is finished; a second
one ends at once. One run after the other, nothing in parallel. Data: scikit-learn's wheel.
"""

import itertools
import os
import time

# The engine has threads of its own, and two pools that spin slow each other down: SciPy's L-BFGS
# ran 8 times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import command  # noqa: E402
import numpy as np  # noqa: E402

import fastcurv as fc  # noqa: E402
from fastcurv.common.optional import optional_import  # noqa: E402

SECOND_ORDER = {
    "trust-region": ("trust-region", {}),
    "newton-cg": ("newton-cg", {}),
    "saddle-free-newton": ("saddle-free-newton", {}),
    "cubic": ("cubic", {}),
    "gauss-newton": ("gauss-newton", {}),
}
LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
BATCH_SIZES = (32, 128, 512, None)
GRADIENT_TOL = 1e-6
MAX_TRAINING_ITERATIONS = 10**9  # never reached: runs end by their time limit


def digits_objective(args):
    """Return the objective of the digits net."""
    with optional_import("digits", "bench"):
        from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    model = fc.MLP([64, 32, 16, 10], activation="tanh")
    return fc.Objective(model, X / 16.0, y, loss="cross_entropy", l2=1e-4, n_threads=args.threads)


def patches_objective(args):
    """Return the objective of an autoencoder of 8 x 8 colour patches of scikit-learn's two
    photographs, one at every fourth pixel: 33 390 rows of 192.
    """
    with optional_import("patches", "bench"):
        from sklearn.datasets import load_sample_images

    cuts = []
    for image in load_sample_images().images:
        windows = np.lib.stride_tricks.sliding_window_view(image, (8, 8, 3))[::4, ::4, 0]
        cuts.append(windows.reshape(-1, 192))
    X = np.concatenate(cuts) / 255.0
    X = (X - X.mean(axis=0)).astype(args.dtype)
    if args.rows:
        X = X[np.random.default_rng(0).permutation(len(X))[: args.rows]]
    model = fc.MLP([192, 128, 64, 16, 64, 128, 192], activation="tanh", dtype=args.dtype)
    return fc.Objective(model, X, X, loss="mse", n_threads=args.threads)


def train(ob, contender, seed, seconds):
    """Train from one start, and return the loss, gradient norm, counts, time and loss curve."""
    method, options = contender
    start = ob.model.init(rng=seed)
    found = fc.minimize(
        ob,
        start,
        method,
        rng=seed,
        max_time=seconds,
        max_iter=MAX_TRAINING_ITERATIONS,
        gradient_tol=GRADIENT_TOL,
        verdict=False,
        **options,
    )
    return {
        "loss": float(found.fun),
        "gradient_norm": float(np.linalg.norm(found.jac)),
        "iterations": found.nit,
        "products": found.nhev,
        "seconds": found.wall_time,
        "stopped": found.stopped,
        "curve": [found.history["time"].tolist(), found.history["loss"].tolist()],
    }


def first_order_contender(method, rate, batch):
    """Return a contender, a pair of method and options. With mini-batches, the whole objective is
    evaluated only once in 25 epochs, which takes little time.
    """
    options = {"learning_rate": rate}
    if batch is not None:
        options.update(batch_size=batch, record_every=25)
    return method, options


class Interrupted(Exception):
    """Raised after Ctrl-C, so that the finished runs are printed."""


def train_or_raise(*args):
    """Train from one start, and raise `Interrupted` if Ctrl-C ended the run, for which `minimize`
    returns a result.
    """
    command.begin_step(f"{args[1][0]}, seed {args[2]}")
    record = train(*args)
    if record["stopped"] == "interrupted":
        raise Interrupted
    return record


def tune_first_order(ob, method, rates, batches, seeds, seconds):
    """Return the pair of learning rate and batch size with the lowest median loss, and the median
    losses of all pairs that were tried.
    """
    grid = {}
    try:
        for rate, batch in itertools.product(rates, batches):
            runs = [
                train_or_raise(ob, first_order_contender(method, rate, batch), seed, seconds)
                for seed in seeds
            ]
            grid[rate, batch] = float(np.median([r["loss"] for r in runs]))
            print(
                f"    {method} learning rate {rate:g}, batch {batch or 'all'}: "
                f"{grid[rate, batch]:.6f}",
                flush=True,
            )
    except (Interrupted, KeyboardInterrupt):
        if not grid:
            raise SystemExit("interrupted before any pair was finished") from None
        print(f"    interrupted: the best of the {len(grid)} pairs above is kept", flush=True)
    best = min(grid, key=grid.get)
    return best, grid


def seconds_to_loss(record, level):
    """Return the seconds until the loss was at most `level` for the first time, or inf."""
    times, losses = (np.asarray(values) for values in record["curve"])
    below = np.flatnonzero(losses <= level)
    return float(times[below[0]]) if below.size else np.inf


def print_table(title, records, target):
    """Print medians over seeds, and the time to the tuned first-order method's median loss."""
    print(f"\n{title}\n")
    print(
        "| method | loss, median | quartiles | gradient norm | below 1e-6 | products | steps or "
        "epochs | s to Adam's loss |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, runs in records.items():
        if not runs:
            continue
        losses = [r["loss"] for r in runs]
        norms = [r["gradient_norm"] for r in runs]
        low, middle, high = np.percentile(losses, [25, 50, 75])
        to_target = np.median([seconds_to_loss(r, target) for r in runs])
        print(
            f"| {name} | {middle:.6f} | {low:.6f} to {high:.6f} | {np.median(norms):.1e} "
            f"| {sum(norm <= GRADIENT_TOL for norm in norms)} of {len(norms)} | "
            f"{np.median([r['products'] for r in runs]):.0f} "
            f"| {np.median([r['iterations'] for r in runs]):.0f} | "
            f"{f'{to_target:.2f}' if np.isfinite(to_target) else 'never'} |"
        )


def train_all(ob, contenders, seeds, seconds):
    """Train with every contender from every start, seeds outermost. Return the records by name."""
    records = {name: [] for name in contenders}
    try:
        for seed in seeds:
            for name, contender in contenders.items():
                record = train_or_raise(ob, contender, seed, seconds)
                records[name].append(record)
                print(f"    seed {seed}: {name:<44} loss {record['loss']:.6f}  gradient "
                      f"{record['gradient_norm']:.1e}  "
                      f"{record['seconds']:.1f} s", flush=True)  # fmt: skip
    except (Interrupted, KeyboardInterrupt):
        print("    interrupted: the table contains the finished runs", flush=True)
    return records


def print_time_limit(n_runs, seconds):
    """Print the time that the runs take at most."""
    print(
        f"{n_runs} runs of at most {seconds:g} s, one after the other: "
        f"{n_runs * seconds / 60:.0f} minutes at most.",
        flush=True,
    )


def median_loss(records, name):
    return float(np.median([r["loss"] for r in records[name]])) if records[name] else np.inf


def compare_on_digits(args):
    ob, seconds = digits_objective(args), args.seconds or (1.0 if args.quick else 8.0)
    rates, batches = ((3e-3, 1e-2), (128, None)) if args.quick else (LEARNING_RATES, BATCH_SIZES)
    tuning = range(1000, 1001 if args.quick else 1003)
    seeds = range(args.seeds or (2 if args.quick else 10))
    print_time_limit(
        len(rates) * len(batches) * len(tuning) + len(seeds) * (2 + len(SECOND_ORDER)), seconds
    )
    print(f"Adam's grid, {seconds:g} s a run, {len(tuning)} seeds of its own:")
    (rate, batch), grid = tune_first_order(ob, "adam", rates, batches, tuning, seconds)
    adam = f"Adam, rate {rate:g}, batch {batch or 'all'}"
    contenders = {
        adam: first_order_contender("adam", rate, batch),
        **SECOND_ORDER,
        "l-bfgs": ("l-bfgs", {}),
    }
    print(f"All, {seconds:g} s a run, {len(seeds)} starts:")
    records = train_all(ob, contenders, seeds, seconds)
    target = median_loss(records, adam)
    print_table(f"digits 64-32-16-10, l2 1e-4, {seconds:g} s, {len(seeds)} seeds", records, target)
    medians = {name: median_loss(records, name) for name in SECOND_ORDER}
    best = min(medians, key=medians.get)
    if not (np.isfinite(target) and np.isfinite(medians[best])):
        return {"grid": [[*pair, loss] for pair, loss in grid.items()], "records": records}
    verdict = "lower" if medians[best] < target else "not lower"
    print(
        f"\nThe best second-order method, {best}, ends at {medians[best]:.6f}, {verdict} than "
        f"tuned Adam's {target:.6f}; "
        f"its gradient is {np.median([r['gradient_norm'] for r in records[best]]):.1e}."
    )
    return {"grid": [[*pair, loss] for pair, loss in grid.items()], "records": records}


def compare_on_patches(args):
    args.rows = args.rows or (8192 if args.quick else None)
    ob, seconds = patches_objective(args), args.seconds or (6.0 if args.quick else 60.0)
    sample = max(512, ob.n_samples // 16)
    large = {"sample": sample, "precondition": True, "warm_start": True}
    contenders = {
        "Adam": first_order_contender("adam", 1e-3, 256),
        "momentum": first_order_contender("momentum", 0.1, 256),
        "saddle-free-newton": ("saddle-free-newton", {}),
        "newton-cg": ("newton-cg", {}),
        "gauss-newton": ("gauss-newton", {}),
        f"saddle-free-newton, {sample} rows, scaled": ("saddle-free-newton", large),
        f"gauss-newton, {sample} rows, scaled": ("gauss-newton", large),
        "l-bfgs": ("l-bfgs", {}),
    }
    for name in ("Adam", "momentum"):
        contenders[name][1]["record_every"] = 1
    print_time_limit((args.seeds or 1) * len(contenders), seconds)
    print(
        f"patches: {ob.n_samples} rows, {ob.n_params} parameters, {args.dtype}, {seconds:g} s a "
        "run:"
    )
    records = train_all(ob, contenders, range(args.seeds or 1), seconds)
    target = median_loss(records, "Adam")
    print_table(
        f"autoencoder 192-128-64-16-64-128-192, {ob.n_samples} patches, {seconds:g} s",
        records,
        target,
    )
    print(f"\n\"{sample} rows, scaled\": curvature from {sample} rows drawn at each point, "
          "precondition and warm_start; "
          "value and gradient are of all rows.")  # fmt: skip
    return {"records": records}


def main(argv=None):
    parser = command.parser(__doc__)
    parser.add_argument(
        "what", nargs="?", choices=("digits", "patches"), default="digits", help="(default digits)"
    )
    parser.add_argument("--seconds", type=float, help="wall time of a run (digits 8, patches 60)")
    parser.add_argument("--seeds", type=int, help="starts (digits 10, patches 1)")
    parser.add_argument("--threads", type=int, help="(default as many as processors)")
    parser.add_argument(
        "--dtype", choices=("float64", "float32"), default="float32", help="of patches"
    )
    parser.add_argument("--rows", type=int, help="of patches: number of rows, drawn at random")
    parser.add_argument("--quick", action="store_true", help="small budgets, to see that it works")
    args = parser.parse_args(argv)
    began = time.time()
    with command.run(args) as numbers:
        fc.show_versions()
        numbers |= compare_on_digits(args) if args.what == "digits" else compare_on_patches(args)
        print(f"\n{time.time() - began:.0f} s in all, {os.cpu_count()} processors.")


if __name__ == "__main__":
    main()

"""Small networks: the cost of an iteration relative to its arithmetic, and which method finds the
lowest loss in the least time.

    python benchmarks/small_networks.py
    python benchmarks/small_networks.py --part fits --starts 30

Processor time on one thread. By default: minimize(ob, start), with its verdict. An iteration: the
difference of a long run and one of half its length, over that of their iterations; its arithmetic
is two gradients and its products or, where that takes less, its matrix with a factorisation, and
for levenberg-marquardt the Jacobian, its square and a Cholesky factor by BLAS and LAPACK, and a
value. Fits: mse from the same starts by each method, SciPy's least_squares with the exact Jacobian,
thirty lines of NumPy that do what levenberg-marquardt does, and torch-levenberg-marquardt if it is
installed; each ends at a mse of 1e-6 or after --seconds, and a start counts if it ends within 1% of
the lowest loss that any of them has found. Before these the sine, to a mse of 2e-3.
"""

import os
import time
import warnings
from contextlib import suppress
from importlib.util import find_spec

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # idle threads of OpenBLAS spin

import command  # noqa: E402
import numpy as np  # noqa: E402

from fastcurv.common.optional import optional_import  # noqa: E402

MAX_ITERATION_COST = 1.5, 2, 60e-6  # factor of the arithmetic, gradients, seconds
MAX_MARQUARDT_COST = 1.5, 5e-6  # the same bound of levenberg-marquardt: factor, seconds
MAX_TIME_RATIO = 0.2  # time of fits by levenberg-marquardt, over that of others
DENSE_MAX_PARAMS = 500  # above it, products always take less time than a matrix
MIN_SECONDS_PER_JOB = 0.3  # minimum length of the rounds
MAX_SINE_MILLISECONDS = 20  # bound of a fit of the sine with default options
ARITHMETIC = "product", "gradient", "value"
METHODS = "newton-cg", "gauss-newton", "trust-region", "saddle-free-newton", "cubic"
FITS = "sine", "parity", "cancer", "wine", "diabetes"
MIN_MSE = 1e-6  # fits below it are equally good
CURVE_MSE = 2e-3  # mse at which fits of curves end


def main():
    args = parse_arguments()
    warnings.simplefilter("ignore")
    with command.run(args) as numbers:
        if args.part in ("default", "all"):
            numbers["default"] = time_default_fits(args)
        if args.part in ("iterations", "all"):
            numbers["iterations"] = time_iterations(args)
        if args.part in ("targets", "all"):
            numbers["targets"] = time_curve_fits(args)
        if args.part in ("fits", "all"):
            numbers["fits"] = time_fits(args)


def parse_arguments():
    parser = command.parser(__doc__, bounds=True)
    parts = "iterations", "targets", "fits", "default", "all"
    parser.add_argument("--part", choices=parts, default="all", help="what to run (default all)")
    command.add_names_option(parser, "--fits", FITS)
    parser.add_argument("--starts", type=int, default=12, help="of each fit (default 12)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a fit at most (default 3)")
    parser.add_argument("--rounds", type=int, default=5, help="the best counts (default 5)")
    return parser.parse_args()


def standardised(X):
    return (X - X.mean(axis=0)) / (X.std(axis=0) + (X.std(axis=0) == 0))


def problems():
    """Return ``{name: (sizes, X, Y)}``, targets as columns of numbers."""
    with optional_import("the problems", "bench"):
        from sklearn import datasets

    x = np.linspace(-1, 1, 41)[:, None]
    bits = np.array([[(i >> k) & 1 for k in range(3)] for i in range(8)], float)
    cancer, wine, diabetes, digits = (
        getattr(datasets, "load_" + name)(return_X_y=True)
        for name in ("breast_cancer", "wine", "diabetes", "digits")
    )
    return {
        "sine": ([1, 5, 1], x, np.sin(np.pi * x)),
        "parity": ([3, 10, 10, 1], 2 * bits - 1, bits.sum(axis=1, keepdims=True) % 2 * 2 - 1),
        "cancer": ([9, 5, 5, 2], standardised(cancer[0])[:, :9], np.eye(2)[cancer[1]]),
        "wine": ([13, 15, 3], standardised(wine[0]), np.eye(3)[wine[1]]),
        "diabetes": ([10, 10, 1], standardised(diabetes[0]), standardised(diabetes[1][:, None])),
        "wide cancer": ([30, 50, 2], standardised(cancer[0]), np.eye(2)[cancer[1]]),
        "digits": ([64, 32, 16, 10], digits[0] / 16, np.eye(10)[digits[1]]),
    }


def time_default_fits(args):
    """Return ``{problem: milliseconds}``, the median over starts of ``minimize(ob, start)``, with
    its verdict.
    """
    import fastcurv as fc

    numbers = {}
    for name in args.fits:
        sizes, X, Y = problems()[name]
        ob = fc.Objective(fc.MLP(sizes, "tanh"), X, Y, "mse", n_threads=1)
        starts, taken, ends = [ob.model.init(seed) for seed in range(args.starts + 1)], [], []
        for start in starts:
            begun = time.process_time()
            ends.append(fc.minimize(ob, start).stopped)
            taken.append(1e3 * (time.process_time() - begun))
        numbers[name] = float(np.median(taken[1:]))  # the first imports what it needs
        text = ", ".join(f"{ends[1:].count(end)} {end}" for end in sorted(set(ends[1:])))
        print(f"{name:10}by default {numbers[name]:9.2f} ms  {text}")
    if args.bounds and "sine" in numbers:
        command.print_bound(
            numbers["sine"] <= MAX_SINE_MILLISECONDS, f"sine by default in {numbers['sine']:.1f} ms"
        )
    return numbers


def least_seconds(jobs, rounds):
    """Return ``{name: seconds}``, the least time of each job over interleaved rounds: at least
    ``rounds``, and as many as take `MIN_SECONDS_PER_JOB`.
    """
    taken, done, begun = dict.fromkeys(jobs, np.inf), 0, time.process_time()
    while done < rounds or time.process_time() - begun < MIN_SECONDS_PER_JOB * len(jobs):
        for name, job in jobs.items():
            before = time.process_time()
            job()
            taken[name] = min(taken[name], time.process_time() - before)
        done += 1
    return taken


def time_iterations(args):
    """Return ``{problem: {method: seconds of an iteration over the bound}}``."""
    import fastcurv as fc

    numbers = {}
    columns = f"{'taken':>8} {'products':>9} {'matrix':>9} {'bound':>8} {'ratio':>6}"
    print(f"{'us an iteration':31} {columns}")
    for name, (sizes, X, Y) in problems().items():
        ob = fc.Objective(fc.MLP(sizes, "tanh"), X, Y, "mse", l2=1e-4, n_threads=1)
        jobs, ends = {**arithmetic_jobs(ob), **matrix_jobs(ob)}, {}
        methods = METHODS + ("levenberg-marquardt",) * (ob.n_params <= DENSE_MAX_PARAMS)
        for method in methods:
            runs, ends[method] = two_runs(ob, method)
            jobs |= {(method, i): run for i, run in enumerate(runs)}
        taken = least_seconds(jobs, args.rounds)
        numbers[name] = {m: ratio_to_bound(name, m, taken, ends[m], args) for m in methods}
    return numbers


def arithmetic_jobs(ob):
    """Return ``{(name, count): job}``, each of count products, gradients or values."""
    theta, n = ob.model.init(0), ob.n_params
    H, v, count = ob.hessian(theta), np.ones(n), max(3, 20_000 // n)
    points = [ob.model.init(seed) for seed in range(count)]
    return {
        ("product", count): lambda: [H.product(v) for _ in range(count)],
        ("gradient", count): lambda: [ob.value_and_gradient(t) for t in points],
        ("value", count): lambda: [ob.value(t) for t in points],
    }


def matrix_jobs(ob):
    """Return ``{name: job}``, matrices and their factorisations."""
    from scipy.linalg import cho_factor, eigh
    from scipy.linalg.blas import dsyrk
    from scipy.linalg.lapack import dpotrf

    from fastcurv.spectrum.forms import matrix_of

    if ob.n_params > DENSE_MAX_PARAMS:
        return {}
    theta = ob.model.init(0)
    G, H, J = (getattr(ob, kind)(theta) for kind in ("ggn", "hessian", "jacobian"))
    dense = J.to_dense()
    damped = G.to_dense() + np.eye(ob.n_params)
    return {
        "ggn": lambda: matrix_of(G),
        "factor": lambda: cho_factor(damped),
        "hessian": lambda: matrix_of(H),
        "eigenpairs": lambda: eigh(damped, driver="evd"),
        "jacobian": lambda: ob.jacobian(theta).to_dense(),
        "square": lambda: dsyrk(1.0, dense.T, lower=1),
        "lapack": lambda: dpotrf(damped, lower=1),
    }


def two_runs(ob, method):
    """Return two jobs, a run and one of half as many iterations, and the result of each."""
    import fastcurv as fc

    most, theta = 60 if ob.n_params < 200 else 12, ob.model.init(0)
    limits = {"verdict": False, "gradient_tol": 0.0, "rng": 0}

    def run(count):
        return fc.minimize(ob, theta, method, max_iter=count, **limits)

    return [lambda: run(most), lambda: run(most // 2)], [run(most), run(most // 2)]


def ratio_to_bound(name, method, taken, ends, args):
    """Print the seconds of an iteration, and return their ratio to the bound."""
    prices = {key[0]: seconds / key[1] for key, seconds in taken.items() if key[0] in ARITHMETIC}
    steps = ends[0].nit - ends[1].nit
    seconds = (taken[method, 0] - taken[method, 1]) / steps
    products = (ends[0].nhev - ends[1].nhev) / steps * prices["product"]
    if method == "levenberg-marquardt":
        products, (share, more) = np.nan, MAX_MARQUARDT_COST
        matrix = taken["jacobian"] + taken["square"] + taken["lapack"] + prices["value"]
        bound = share * matrix + more
    else:
        parts = ("ggn", "factor") if method == "gauss-newton" else ("hessian", "eigenpairs")
        matrix = sum(taken.get(part, np.inf) for part in parts)
        share, gradients, more = MAX_ITERATION_COST
        bound = share * min(products, matrix) + gradients * prices["gradient"] + more
    return print_ratio(f"{name:12}{method:19}", seconds, (products, matrix), bound, args)


def print_ratio(named, taken, arithmetic, bound, args):
    """Print and return the ratio of a time to its bound."""
    ratio = taken / bound
    spent = " ".join(f"{1e6 * us:9.0f}" for us in arithmetic)
    print(f"{named} {taken * 1e6:8.0f} {spent} {bound * 1e6:8.0f} {ratio:6.2f}")
    if args.bounds:
        command.print_bound(ratio <= 1, f"{' '.join(named.split())}: {ratio:.2f} of the bound")
    return ratio


def fit_by_numpy(sizes, X, Y, theta, target=MIN_MSE, steps=500):
    """Fit by Levenberg-Marquardt with Nielsen's damping, in NumPy. Return the loss reached."""
    cuts = np.cumsum([(a + 1) * b for a, b in zip(sizes[:-1], sizes[1:], strict=True)])

    def residuals(theta, jacobian):
        states, weights = [X], []
        parts = np.split(theta, cuts[:-1])
        for l, (part, a, b) in enumerate(zip(parts, sizes[:-1], sizes[1:], strict=True)):
            weights.append(part[: a * b].reshape(b, a))
            z = states[-1] @ weights[-1].T + part[a * b :]
            states.append(z if l == len(sizes) - 2 else np.tanh(z))
        r = (states[-1] - Y).ravel() / np.sqrt(Y.size)
        if not jacobian:
            return r
        N, d = Y.shape
        delta, columns = np.broadcast_to(np.eye(d), (N, d, d)), []
        for l in range(len(sizes) - 2, -1, -1):
            J = np.einsum("nij,nk->nijk", delta, states[l]).reshape(N, d, -1)
            columns.insert(0, np.concatenate([J, delta], axis=2))
            if l:
                delta = (delta @ weights[l]) * (1 - states[l] ** 2)[:, None]
        return r, np.concatenate(columns, axis=2).reshape(N * d, -1) / np.sqrt(Y.size)

    r, J = residuals(theta, True)
    f, A, g = r @ r, J.T @ J, J.T @ r
    damping, growth = A.diagonal().max(), 2.0
    for _ in range(steps):
        if f < target:
            break
        s = np.linalg.solve(A + damping * np.eye(len(g)), -g)
        new = residuals(theta + s, False)
        ratio = (f - new @ new) / (s @ (damping * s - g))
        if ratio > 0:
            theta = theta + s
            r, J = residuals(theta, True)
            f, A, g = r @ r, J.T @ J, J.T @ r
            damping, growth = damping * max(0.1, 1 - (2 * ratio - 1) ** 3), 2.0
        else:
            damping, growth = damping * growth, 2 * growth
        if damping > 1e12:
            break
    return f


def fit_by_torch(sizes, X, Y, theta, seconds):
    """Fit by torch-levenberg-marquardt with Cholesky factors. Return the lowest loss."""
    with optional_import("its fits"):
        import torch
        from torch_levenberg_marquardt.training import LevenbergMarquardtModule

    torch.set_num_threads(1)
    layers = [torch.nn.Linear(a, b).double() for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
    net = torch.nn.Sequential(*[part for layer in layers for part in (layer, torch.nn.Tanh())][:-1])
    torch.nn.utils.vector_to_parameters(torch.tensor(theta), net.parameters())
    fit = LevenbergMarquardtModule(net, solve_method="cholesky")
    fit.backup_parameters()
    x, y, lowest, over = torch.tensor(X), torch.tensor(Y), np.inf, False
    end = time.process_time() + seconds
    while not (over or lowest < MIN_MSE or time.process_time() > end):
        _, loss, over, _ = fit.training_step(x, y)
        lowest = min(lowest, float(loss))
    return lowest


def contenders(sizes, ob, X, Y, seconds):
    """Return ``{method: function of a start that returns the loss reached}``."""
    from scipy.optimize import least_squares

    import fastcurv as fc

    scale = np.sqrt(Y.size)
    limits = {"verdict": False, "max_time": seconds, "fun_target": MIN_MSE, "rng": 0}

    def scipys(theta):
        end, lowest = time.process_time() + seconds, np.inf

        def residuals(t):
            nonlocal lowest
            r = (ob.model.predict(t, X) - Y).ravel() / scale
            lowest = min(lowest, r @ r)
            if lowest < MIN_MSE or time.process_time() > end:
                raise StopIteration
            return r

        with suppress(StopIteration):
            least_squares(
                residuals, theta, lambda t: ob.jacobian(t).to_dense() / scale, method="lm"
            )
        return lowest

    found = {
        method: lambda theta, method=method: fc.minimize(ob, theta, method, **limits).fun
        for method in ("levenberg-marquardt", "newton-cg", "l-bfgs")
    }
    found["numpy"] = lambda theta: fit_by_numpy(sizes, X, Y, theta)
    if Y.size >= ob.n_params:  # MINPACK needs as many residuals as parameters
        found["least_squares"] = scipys
    if find_spec("torch_levenberg_marquardt"):
        found["torch"] = lambda theta: fit_by_torch(sizes, X, Y.astype(float), theta, seconds)
    return found


def curves():
    """Return ``{name: (sizes, X, Y)}`` of curves that are fitted in some ten steps."""
    sizes, x, sine = problems()["sine"]
    x1, x2 = np.random.default_rng(0).uniform(-1, 1, (2, 60, 1))
    ones = {"cosine": np.cos(np.pi * x), "exp": np.exp(x), "|x|": np.abs(x), "sine": sine}
    ones |= {"bump": np.exp(-8 * x * x), "step": np.tanh(10 * x)}
    return {name: (sizes, x, y) for name, y in ones.items()} | {
        "x1 x2": ([2, 6, 1], np.hstack([x1, x2]), x1 * x2),
        "sin(2 x1) x2": ([2, 4, 3, 1], np.hstack([x1, x2]), np.sin(2 * x1) * x2),
    }


def time_curve_fits(args):
    """Return ``{curve: {method: seconds}}`` of fits to `CURVE_MSE` from the same starts."""
    import fastcurv as fc

    numbers, limits = {}, {"verdict": False, "fun_target": CURVE_MSE}
    for name, (sizes, X, Y) in curves().items():
        ob = fc.Objective(fc.MLP(sizes, "tanh"), X, Y, "mse", n_threads=1)
        starts = [ob.model.init(seed) for seed in range(args.starts)]

        def ours(ob=ob, starts=starts):
            return [fc.minimize(ob, t, "lm", **limits).fun for t in starts]

        def theirs(sizes=sizes, X=X, Y=Y, starts=starts):
            return [fit_by_numpy(sizes, X, Y, t, CURVE_MSE) for t in starts]

        fitted, found = (sum(loss <= CURVE_MSE for loss in fit()) for fit in (ours, theirs))
        taken = least_seconds({"levenberg-marquardt": ours, "numpy": theirs}, 5)
        numbers[name] = {method: seconds / len(starts) for method, seconds in taken.items()}
        mine, other = numbers[name].values()
        text = f"{name} by {'-'.join(map(str, sizes))} to {CURVE_MSE}: {1e3 * mine:.2f} ms, "
        text += f"{mine / other:.2f} of NumPy's, {fitted} of {len(starts)} starts, NumPy's {found}"
        print(text)
        if args.bounds:
            command.print_bound(mine <= MAX_TIME_RATIO * other and fitted >= found, text)
    return numbers


def print_fit_bounds(name, found):
    """Print the bounds on one problem's fits."""
    (share, seconds), others = found["levenberg-marquardt"], dict(found)
    del others["levenberg-marquardt"], others["numpy"]
    most = max(theirs for theirs, _ in others.values())
    command.print_bound(share >= most, f"{name}: {share:.2f} of starts, others {most:.2f} at most")
    for other in {"least_squares", "torch"} & set(others):
        ratio = seconds / others[other][1]
        command.print_bound(ratio <= MAX_TIME_RATIO, f"{name}: {ratio:.2f} of the time of {other}")


def time_fits(args):
    """Return ``{problem: {method: (share of starts, median seconds)}}``."""
    import fastcurv as fc

    numbers = {}
    for name in args.fits:
        sizes, X, Y = problems()[name]
        ob = fc.Objective(fc.MLP(sizes, "tanh"), X, Y, "mse", n_threads=1)
        starts = [ob.model.init(seed) for seed in range(args.starts)]
        ends, taken = {}, {}
        for method, fit in contenders(sizes, ob, X, Y, args.seconds).items():
            command.begin_step(f"{name}, {method}")
            fit(starts[0])
            ends[method], taken[method] = [], []
            for theta in starts:
                begun = time.process_time()
                ends[method].append(fit(theta))
                taken[method].append(time.process_time() - begun)
        lowest = 1.01 * max(min(map(min, ends.values())), MIN_MSE)
        numbers[name] = {}
        for method, losses in ends.items():
            share, seconds = np.mean(np.array(losses) <= lowest), np.median(taken[method])
            numbers[name][method] = float(share), float(seconds)
            print(
                f"{name:10}{method:20} {share:5.2f} of starts  {seconds * 1e3:9.2f} ms  "
                f"median {np.median(losses):.3g}"
            )
        if args.bounds:
            print_fit_bounds(name, numbers[name])
    return numbers


if __name__ == "__main__":
    main()

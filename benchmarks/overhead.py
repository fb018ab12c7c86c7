"""The cost of eigenpairs and densities relative to that of their products alone, in float32, and of
an iteration of L-BFGS on a small net relative to that of its gradients.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --workload digits --rounds 5
    python benchmarks/overhead.py --threads 1 --bounds
    python benchmarks/overhead.py --workload tiny --nets 1-5-1 digits
    python benchmarks/overhead.py --small --bounds          # small networks alone

A ratio of 1.0 is the time of the products alone. Eigenpairs: the 5 lowest, then the 5 highest, and
both ends in one call, tol 1e-3; density: 5 probes of 60 steps. After each job, as many products run
one after the other; the best round of each counts. L-BFGS: processor time of one thread over 400
iterations without a verdict, compared with that of gradients one after the other and of two sweeps
over its 40 vectors; a line search takes slightly more than one gradient an iteration.

Small networks, in float64, on one thread and in processor time: 5 eigenpairs, compared with the
lesser of the products of a search one after the other, and the matrix by products with its
decomposition by NumPy; and the matrix alone, by products and as the engine sums it over rows.
"""

import time

import command
import numpy as np
from workloads import DTYPES, WORKLOADS, Workload, flat

from fastcurv.common.vectors import combine_rows, project_rows
from fastcurv.spectrum.forms import matrix_of

N_PER_END, TOL, N_PROBES, N_STEPS = 5, 1e-3, 5, 60
MEMORY, N_ITERATIONS = 20, 400
ITERATION_BOUND = "1.3 gradients + 12 us + the two sweeps"  # of L-BFGS
NETS = {
    w.name: w
    for w in (
        Workload("1-5-1", (1, 5, 1), 41, "tanh", "mse"),
        Workload("10-10-1", (10, 10, 1), 442, "tanh", "mse"),
        Workload("30-50-2", (30, 50, 2), 569, "tanh", "cross_entropy"),
        WORKLOADS["digits"],
        Workload("9-5-5-2", (9, 5, 5, 2), 699, "sigmoid", "cross_entropy"),
        Workload("13-15-3", (13, 15, 3), 178, "tanh", "cross_entropy"),
        Workload("8-20-20-1", (8, 20, 20, 1), 768, "gelu", "mse"),
        Workload("200-20-5", (200, 20, 5), 60, "tanh", "cross_entropy"),
    )
}
BOUNDS = {  # time of a job over that of its products
    "mnist-128": {"lowest, then highest": 1.7, "density": 1.35},
    "few-100": {"lowest, then highest": 1.9, "density": 1.5},
    "mnist": {"lowest, then highest": 1.15, "density": 1.08},
}
SMALL = ("sine", "small-20", "cancer", "diabetes", "small-10", "wine", "small-13")
SMALL_BOUND, SMALL_EXTRA_SECONDS = 1.3, 150e-6  # factor of the least time, and added seconds


def main():
    args = parse_arguments()
    with command.run(args) as numbers:
        compare_times(args, numbers)


def compare_times(args, numbers):
    """Measure every workload, then print the bounds if ``--bounds`` is given."""
    print(
        f"{command.cpu_name()}, {args.threads} threads, float32, {time.strftime('%Y-%m-%d %H:%M')}"
    )
    ratios = {name: measure(WORKLOADS[name], args) for name in args.workload * (not args.small)}
    small = {name: measure_small(WORKLOADS[name]) for name in SMALL * args.small}
    iterations = measure_iterations(args) if ratios else {}
    numbers.update({**ratios, **small, **iterations})
    if not args.bounds:
        return
    print("\nBounds\n")
    for job, found in iterations.items():
        command.print_bound(
            found["ratio"] <= 1, f"{job}: {found['ratio']:.2f} of {ITERATION_BOUND}"
        )
    for name, found in ratios.items():
        for job, bound in BOUNDS.get(name, {}).items():
            ratio = found[job]
            command.print_bound(
                ratio <= bound, f"{name}: {job} {ratio:.2f}, wanted at most {bound}"
            )
    for name, (took, *ways) in small.items():
        bound = SMALL_BOUND * min(ways) + SMALL_EXTRA_SECONDS
        text = f"{took * 1e6:.0f} us, wanted at most {bound * 1e6:.0f}"
        command.print_bound(took <= bound, f"{name}: 5 eigenpairs in {text}")


def parse_arguments():
    parser = command.parser(__doc__, bounds=True)
    command.add_names_option(
        parser, "--workload", WORKLOADS, ("digits", "few-100", "mnist-128", "mnist")
    )
    command.add_names_option(parser, "--nets", NETS)
    parser.add_argument("--threads", type=int, default=2, help="(default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="the best counts (default 3)")
    parser.add_argument("--small", action="store_true", help="small networks, and these alone")
    return parser.parse_args()


def measure(workload, args):
    """Return ``{job: time over that of its products}``, the best of each over the rounds."""
    import fastcurv as fc

    X, y, layers, _ = workload.problem("float32")
    model = fc.MLP(workload.sizes, activation=workload.activation, dtype="float32")
    ob = fc.Objective(model, X, y, loss=workload.loss, n_threads=args.threads)
    H = ob.hessian(flat(layers))
    options = {"tol": TOL}
    jobs = {
        "lowest, then highest": lambda seed: (
            fc.eigsh(H, N_PER_END, "SA", rng=seed, **options).n_products
            + fc.eigsh(H, N_PER_END, "LA", rng=seed, **options).n_products
        ),
        "both ends at once": lambda seed: (
            fc.eigsh(H, 2 * N_PER_END, "BE", rng=seed, **options).n_products
        ),
        "density": lambda seed: fc.spectral_density(H, N_PROBES, N_STEPS, rng=seed).n_products,
    }
    v, out = np.ones(H.shape[0], "float32"), np.empty(H.shape[0], "float32")

    def products_alone(count):
        for _ in range(count):
            H.product(v, out=out)

    # processor time of one thread does not depend on other work on the machine
    clock = time.process_time if args.threads == 1 else time.perf_counter
    each = {job: [np.inf, np.inf, 0] for job in jobs}  # seconds a product: in the job, alone
    for seed in range(args.rounds):
        for job, run in jobs.items():
            command.begin_step(f"{workload.name}: {job}, round {seed + 1} of {args.rounds}")
            took, products = time_call(run, seed, clock=clock)
            bare, _ = time_call(products_alone, products, clock=clock)
            inside, outside, _ = each[job]
            each[job] = [min(inside, took / products), min(outside, bare / products), products]
    one = min(outside for _, outside, _ in each.values())
    print(f"\n{workload}, n {H.shape[0]}: a product {one * 1e3:.3g} ms")
    for job, (inside, outside, products) in each.items():
        print(f"  {job:22} {products:5} products, {inside / outside:5.2f} times their time")
    return {job: inside / outside for job, (inside, outside, _) in each.items()}


def measure_iterations(args):
    """Measure an iteration of L-BFGS on every net in both dtypes. Return the numbers by name."""
    print(
        f"\nAn iteration of L-BFGS, one thread, us of processor time; at most {ITERATION_BOUND}\n"
    )
    print("| net | dtype | n | gradient | iteration | gradients in it | sweeps | of the most |")
    print("|---|---|---|---|---|---|---|---|")
    numbers = {}
    for name in args.nets:
        for dtype in DTYPES:
            command.begin_step(f"L-BFGS on {name}, {dtype}")
            numbers[f"l-bfgs, {name}, {dtype}"] = iteration(NETS[name], dtype, args.rounds)
    return numbers


def iteration(net, dtype, rounds):
    """Return the time of an iteration in us, and its ratio to `ITERATION_BOUND`."""
    import fastcurv as fc

    X, y, layers, _ = net.problem(dtype)
    model = fc.MLP(net.sizes, activation=net.activation, dtype=dtype)
    ob = fc.Objective(model, X, y, loss=net.loss, l2=1e-4, n_threads=1)
    start = flat(layers)
    points = [start, start * np.float32(1.001)]
    rows, pair = np.ones((2 * MEMORY, start.size), dtype), np.ones((2, start.size), dtype)
    weights, out = np.ones((2 * MEMORY, 1)), np.empty((1, start.size), dtype)

    def gradients(count):
        for i in range(count):
            ob.value_and_gradient(points[i % 2])

    def sweeps(count):
        for _ in range(count):
            project_rows(rows, pair)
            combine_rows(rows, weights, out)

    def steps(count):
        return fc.minimize(
            ob, start, "l-bfgs", memory=MEMORY, max_iter=count, gradient_tol=0.0, verdict=False
        )

    least = dict.fromkeys((gradients, sweeps, steps), np.inf)
    for _ in range(4 * rounds):
        for run in least:
            took, found = time_call(run, N_ITERATIONS, clock=time.process_time)
            least[run] = min(least[run], took / (found.nit if found else N_ITERATIONS) * 1e6)
    gradient, sweep, one = least[gradients], least[sweeps], least[steps]
    ratio, each = one / (1.3 * gradient + 12 + sweep), found.njev / found.nit
    print(
        f"| {net.name} | {dtype} | {start.size} | {gradient:.1f} | {one:.1f} | {each:.2f} | "
        f"{sweep:.1f} | {ratio:.2f} |",
        flush=True,
    )
    return {"gradient": gradient, "iteration": one, "gradients": each, "ratio": ratio}


def measure_small(workload):
    """Return the seconds of 5 eigenpairs, of the products of a search for them, and of the matrix
    with its decomposition.
    """
    import fastcurv as fc

    X, y, layers, _ = workload.problem("float64")
    model = fc.MLP(workload.sizes, activation=workload.activation)
    H = fc.Objective(model, X, y, loss=workload.loss, n_threads=1).hessian(flat(layers))
    n = H.shape[0]
    products = fc.eigsh(H, N_PER_END, max_basis=min(n, 300), rng=0).n_products
    v, out = np.ones(n), np.empty(n)

    def products_alone():
        for _ in range(products):
            H.product(v, out=out)

    found = [
        least_seconds(lambda: fc.eigsh(H, N_PER_END, rng=0)),
        least_seconds(products_alone),
        least_seconds(lambda: np.linalg.eigh(H.to_dense())),
    ]
    matrices = [least_seconds(H.to_dense), least_seconds(lambda: matrix_of(H))]
    text, alone_text = (" ".join(f"{t * 1e6:7.0f}" for t in some) for some in (found, matrices))
    print(f"{workload}, n {n}: us of eigsh, {products} products, matrix and decomposition {text};")
    print(f"    of the matrix by products, summed {alone_text}")
    return found


def least_seconds(run, seconds=0.3):
    """Return the processor time of the fastest of many calls."""
    best, end = np.inf, time.process_time() + seconds
    while time.process_time() < end or not np.isfinite(best):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def time_call(run, *args, clock=time.perf_counter):
    start = clock()
    answer = run(*args)
    return clock() - start, answer


if __name__ == "__main__":
    main()

"""What eigenpairs and densities cost beside the products they are made of, in float32.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --workload digits --rounds 5

A ratio of 1.0 would be products alone. Eigenpairs: the 5 lowest, then the 5 highest, and both ends
in one call, tol 1e-3; density: 5 probes of 60 steps. After each job as many products run one after
the other, and nothing between them; the best round of either counts.
"""

import time

import command
import numpy as np
from workloads import WORKLOADS, flat

ENDS, TOL, PROBES, STEPS = 5, 1e-3, 5, 60
BOUNDS = {  # times its products
    "mnist-128": {"lowest, then highest": 1.9, "density": 1.5},
    "mnist": {"lowest, then highest": 1.15, "density": 1.08},
}


def main():
    args = parse()
    with command.run(args) as numbers:
        compare(args, numbers)


def compare(args, numbers):
    """Every workload, then the bounds where they are asked for."""
    print(
        f"{command.cpu_name()}, {args.threads} threads, float32, {time.strftime('%Y-%m-%d %H:%M')}"
    )
    for name in args.workload:
        numbers[name] = measure(WORKLOADS[name], args)
    if not args.bounds:
        return
    print("\nBounds\n")
    for name, bounds in BOUNDS.items():
        for job, bound in bounds.items():
            if name in numbers:
                ratio = numbers[name][job]
                command.met(ratio <= bound, f"{name}: {job} {ratio:.2f}, wanted at most {bound}")


def parse():
    parser = command.parser(__doc__, bounds=True)
    command.some_of(parser, "--workload", WORKLOADS, ("digits", "mnist-128", "mnist"))
    parser.add_argument("--threads", type=int, default=2, help="(default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="the best counts (default 3)")
    return parser.parse_args()


def measure(workload, args):
    """``{job: time over that of its products}``, the best of each over the rounds."""
    import fastcurv as fc

    X, y, layers, _ = workload.problem("float32")
    model = fc.MLP(workload.sizes, activation=workload.activation, dtype="float32")
    ob = fc.Objective(model, X, y, loss=workload.loss, n_threads=args.threads)
    H = ob.hessian(flat(layers))
    jobs = {
        "lowest, then highest": lambda seed: (
            fc.eigsh(H, ENDS, "SA", tol=TOL, relative="value", seed=seed).n_products
            + fc.eigsh(H, ENDS, "LA", tol=TOL, relative="value", seed=seed).n_products
        ),
        "both ends at once": lambda seed: (
            fc.eigsh(H, 2 * ENDS, "BE", tol=TOL, relative="value", seed=seed).n_products
        ),
        "density": lambda seed: fc.spectral_density(H, PROBES, STEPS, seed=seed).n_products,
    }
    v, out = np.ones(H.shape[0], "float32"), np.empty(H.shape[0], "float32")

    def alone(count):
        for _ in range(count):
            H.product(v, out=out)

    each = {job: [np.inf, np.inf, 0] for job in jobs}  # seconds a product: in the job, alone
    for seed in range(args.rounds):
        for job, run in jobs.items():
            command.step(f"{workload.name}: {job}, round {seed + 1} of {args.rounds}")
            took, products = timed(run, seed)
            bare, _ = timed(alone, products)
            inside, outside, _ = each[job]
            each[job] = [min(inside, took / products), min(outside, bare / products), products]
    one = min(outside for _, outside, _ in each.values())
    print(f"\n{workload}, n {H.shape[0]}: a product {one * 1e3:.3g} ms")
    for job, (inside, outside, products) in each.items():
        print(f"  {job:22} {products:5} products, {inside / outside:5.2f} times their time")
    return {job: inside / outside for job, (inside, outside, _) in each.items()}


def timed(run, *args):
    start = time.perf_counter()
    answer = run(*args)
    return time.perf_counter() - start, answer


if __name__ == "__main__":
    main()

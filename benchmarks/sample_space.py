"""Ten extreme eigenpairs in sample space, or of a GGN by its outputs, and in parameter space.

    python benchmarks/sample_space.py                  # wide, N 64 and N 256, float64
    python benchmarks/sample_space.py --rows 256 --dtype float32
    python benchmarks/sample_space.py --workload mnist --rows 32 128 --threads 1
    python benchmarks/sample_space.py --ggn --workload mnist --rows 64 256    # by their outputs
    python benchmarks/sample_space.py --inputs --bounds         # in the space of the inputs
    python benchmarks/sample_space.py --memory         # 50 million parameters: the peak of memory

Each contender has a process of its own; rounds are interleaved and the best counts. Both search for
5 eigenpairs of each end to the same tolerance, from their own random starts; their values must
agree. The time includes that of making the state and the coordinates. The processor time is printed
too, which depends less on other work on the machine. With `--products` the search ends after as
many, converged or not, and values are not compared.

In the space of the inputs, medians of processor time on one thread over the same in parameter
space, for the only workload whose Hessian is searched there by default: small-1.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import command
import numpy as np
from peers import thread_variables
from workloads import WORKLOADS, Workload, flat

MIN_SPEEDUPS = {64: 2.2, 256: 1.5}  # times faster than in parameter space
MIN_INPUTS_SPEEDUP = 1.2  # times faster in the space of the inputs, the job that gains most
N_PAIRS = 10
MAX_PEAK_GIB = 4.0  # with 50 million parameters
HUGE_WORKLOAD = Workload("huge", (5000, 5000, 4990, 10), 64, "tanh", "cross_entropy")  # 50 million


def serve_searches(space, args):
    """Run as the process of a contender: write a measurement for every line of the input."""
    import fastcurv as fc

    huge, rows, dtype, threads = args.memory, args.rows[0], args.dtype, args.threads
    base = HUGE_WORKLOAD if huge else WORKLOADS[args.workload]
    workload = Workload(base.name, base.sizes, rows, base.activation, base.loss)
    model = fc.MLP(workload.sizes, activation=workload.activation, dtype=dtype)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, workload.sizes[0])).astype(dtype)
    if workload.loss == "cross_entropy":
        y = rng.integers(workload.sizes[-1], size=rows)
    else:
        y = rng.standard_normal((rows, workload.sizes[-1]))
    theta = model.init(rng=0)
    ob = fc.Objective(model, X, y, loss=workload.loss, n_threads=threads)
    for line in sys.stdin:
        H = ob.ggn(theta) if args.ggn else ob.hessian(theta)
        start, before = time.perf_counter(), time.process_time()
        which = "LA" if args.ggn else "BE"
        pairs = fc.eigsh(H, N_PAIRS, which, space=space, rng=int(line), max_products=args.products)
        answer = {
            "seconds": time.perf_counter() - start,
            "cpu": time.process_time() - before,
            "products": pairs.n_products,
            "values": pairs.values.tolist(),
            "converged": bool(pairs.converged.all()),
            "space": pairs.space,
            "n": pairs.n,
            "m": pairs.n if pairs.space == "parameters" else pairs.reduction.shape[0],
        }
        if huge:
            v = pairs.vector(N_PAIRS - 1)
            residual = H.product(v)
            v *= pairs.values[-1]
            residual -= v
            answer["residual"] = float(np.linalg.norm(residual)) / float(np.abs(pairs.values).max())
            answer["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(answer), flush=True)
        del pairs, H


class Child:
    """A contender in a process of its own."""

    def __init__(self, space, args, rows, huge=False):
        command = [sys.executable, str(Path(__file__).absolute()), "--serve", space or "auto"]
        command += ["--rows", str(rows), "--dtype", args.dtype, "--threads", str(args.threads)]
        command += ["--workload", args.workload] + ["--ggn"] * args.ggn
        command += ["--products", str(args.products)] if args.products else []
        self.process = subprocess.Popen(
            command + ["--memory"] * huge,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ, **thread_variables(args.threads)),
        )

    def ask(self, seed):
        self.process.stdin.write(f"{seed}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def compare_spaces(rows, args):
    """Search in both spaces in turns, and return the best answer of each, the smaller space
    first.
    """
    small = "outputs" if args.ggn else "samples"
    children = {space: Child(space, args, rows) for space in (small, "parameters")}
    best = {}
    for seed in range(args.rounds):
        for space, child in children.items():
            command.begin_step(f"N {rows}, {space}: round {seed + 1} of {args.rounds}")
            answer = child.ask(seed)
            if space not in best or answer["seconds"] < best[space]["seconds"]:
                best[space] = answer
    for child in children.values():
        child.close()
    there, here = best[small], best["parameters"]
    gap = max(abs(a - b) for a, b in zip(there["values"], here["values"], strict=True))
    print(f"\n{args.workload}, N {rows}, {args.dtype}: n {here['n']}, {there['m']} coordinates")
    for space, answer in best.items():
        print(
            f"  {space:10} {answer['seconds']:8.2f} s, {answer['cpu']:8.2f} s of processor  "
            f"{answer['products']:4} products, "
            f"{'all' if answer['converged'] else 'not all'} converged"
        )
    if not args.products:
        print(f"  values agree to {gap / max(map(abs, here['values'])):.1e} of the largest")
    print(f"  {here['cpu'] / there['cpu']:.2f}x less of the processor in the space of {small}")
    return best


def measure_peak(args):
    """Search ten eigenpairs of 50 million parameters, and return their time and peak memory."""
    command.begin_step("50 million parameters")
    child = Child(None, args, HUGE_WORKLOAD.n_samples, huge=True)
    answer = child.ask(0)
    child.close()
    print(
        f"\n{HUGE_WORKLOAD}, {args.dtype}: n {answer['n']}, {answer['m']} coordinates, space "
        f"{answer['space']}\n  {answer['seconds']:.1f} s, {answer['products']} products, "
        f"residual of one vector, in parameter space: {answer['residual']:.1e} of the largest "
        f"value\n  peak {answer['peak']:.2f} GiB"
    )
    if args.bounds:
        command.print_bound(answer["peak"] < MAX_PEAK_GIB, f"peak below {MAX_PEAK_GIB:g} GiB")
    return answer


def measure_input_space(args):
    """Return the speed-ups of searches and densities in the space of the inputs."""
    import fastcurv as fc

    jobs = {
        "5 highest": lambda H, **how: fc.eigsh(H, 5, "LA", **how),
        "5 lowest": lambda H, **how: fc.eigsh(H, 5, "SA", **how),
        "both ends, tol 1e-3": lambda H, **how: fc.eigsh(H, 10, "BE", tol=1e-3, **how),
        "density": lambda H, **how: fc.spectral_density(H, 5, 60, **how),
    }
    workload = WORKLOADS["small-1"]
    X, y, layers, _ = workload.problem(args.dtype)
    model = fc.MLP(workload.sizes, activation=workload.activation, dtype=args.dtype)
    H = fc.Objective(model, X, y, loss=workload.loss, n_threads=1).hessian(flat(layers))
    print(f"\n{workload}, {args.dtype}: n {H.shape[0]}, {H.reduced('inputs').shape[0]} coordinates")
    gains = {}
    for name, job in jobs.items():
        took = {"parameters": [], "inputs": []}
        for seed in range(5 * args.rounds):
            command.begin_step(f"{name}, round {seed + 1} of {5 * args.rounds}")
            for space, found in took.items():
                start = time.process_time()
                job(H, seed=seed, space=space)
                found.append(time.process_time() - start)
        there, here = (float(np.median(found)) for found in took.values())
        gains[name] = there / here
        print(f"  {name:20} {here * 1e3:6.1f} ms, {gains[name]:.2f}x faster")
    if args.bounds:
        command.print_bound(
            max(gains.values()) >= MIN_INPUTS_SPEEDUP, f"one at least {MIN_INPUTS_SPEEDUP}x"
        )
    return gains


def main(argv=None):
    parser = command.parser(__doc__, bounds=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 256], help="(default 64 256)")
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), default="float64", help="(default float64)"
    )
    parser.add_argument("--threads", type=int, default=2, help="of each contender (default 2)")
    parser.add_argument("--rounds", type=int, default=2, help="the best counts (default 2)")
    parser.add_argument("--workload", choices=WORKLOADS, default="wide", help="(default wide)")
    parser.add_argument("--products", type=int, help="end after this many products")
    parser.add_argument("--ggn", action="store_true", help="the GGN, by its outputs")
    parser.add_argument("--inputs", action="store_true", help="in the space of the inputs, alone")
    parser.add_argument("--memory", action="store_true", help="50 million parameters, N 64")
    parser.add_argument("--serve", help=command.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        space = None if args.serve == "auto" else args.serve
        serve_searches(space, args)
        return
    with command.run(args) as numbers:
        print(f"{command.cpu_name()}, {args.threads} threads, {time.strftime('%Y-%m-%d %H:%M')}")
        if args.memory or args.inputs:
            numbers |= measure_peak(args) if args.memory else measure_input_space(args)
            return
        for rows in args.rows:
            numbers[f"N {rows}"] = best = compare_spaces(rows, args)
            ratio = best["parameters"]["seconds"] / next(iter(best.values()))["seconds"]
            print(f"  {ratio:.2f}x faster")
            if args.bounds and args.workload == "wide" and not args.ggn and rows in MIN_SPEEDUPS:
                command.print_bound(ratio >= MIN_SPEEDUPS[rows], f"at least {MIN_SPEEDUPS[rows]}x")


if __name__ == "__main__":
    main()

"""From which size on a GPU is faster: one cached product in float32, on this CPU and in JAX.

    python benchmarks/gpu.py                          # with a jax that finds the GPU: a minute
    python benchmarks/gpu.py --workload mnist wide --threads 16

JAX runs ``jit(linearize(grad))`` on its default device, with matrix products in full float32
(precision "highest"), and is synchronised after each product; here it is ``H.product(v, out=out)``.
The rounds are interleaved, and the best counts.
"""

import os

import command
import numpy as np
from peers import Child, Unavailable
from workloads import WORKLOADS

HERE, THERE = "fastcurv", "jax-linearize"
USUAL = ("tiny", "digits", "mnist-128", "mnist")


def main(argv=None):
    parser = command.parser(__doc__)
    command.some_of(parser, "--workload", WORKLOADS, USUAL)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the CPU (all)")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default 15)")
    args = parser.parse_args(argv)
    os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    with command.run(args) as numbers:
        compare(args, numbers)


def compare(args, numbers):
    """Print a row for each workload."""
    children = {HERE: Child(HERE, args.threads), THERE: Child(THERE, args.threads)}
    numbers["rows"] = []
    try:
        print(f"{'ms a product':<58}{'flops':>10}{HERE:>12}{THERE:>16}")
        for name in args.workload:
            command.step(name)
            best = timed(children, name, args)
            numbers["rows"].append({"workload": name, "seconds": best})
            here, there = (
                f"{1e3 * best[label]:.3f}" if label in best else "-" for label in (HERE, THERE)
            )
            workload = WORKLOADS[name]
            print(f"{workload!s:<58}{workload.flops():>10.0e}{here:>12}{there:>16}", flush=True)
        if THERE in best:
            numbers["device"] = children[THERE].ask(do="config")["text"]
            print(f"\nJAX's device: {numbers['device']}")
    finally:
        for child in children.values():
            child.close()


def timed(children, name, args):
    """Return the seconds of a product by library, without JAX where it is not installed."""
    repeats, seconds = {}, {}
    for label, child in children.items():
        call = "product-out" if label == HERE else "product"
        try:
            child.ask(do="build", workload=name, dtype="float32", threads=args.threads)
        except Unavailable as reason:
            if label == HERE:
                raise
            print(reason)
            continue
        once = child.ask(do="time", call=call, repeat=2)["seconds"]
        repeats[label] = call, max(1, int(np.ceil(0.05 / once)))
    for _ in range(args.rounds):
        for label, (call, repeat) in repeats.items():
            took = children[label].ask(do="time", call=call, repeat=repeat)["seconds"]
            seconds[label] = min(took, seconds.get(label, np.inf))
    return seconds


if __name__ == "__main__":
    main()

"""From which size on a GPU is faster: one cached product in float32, on this CPU and in JAX.

    python benchmarks/gpu.py                          # with a jax that finds the GPU: a minute
    python benchmarks/gpu.py --workload mnist wide --threads 16

JAX runs ``jit(linearize(grad))`` on its default device, with matrix products in full float32
(precision "highest"), and is synchronised after each product; fastcurv runs ``H.product(v,
out=out)``. The rounds are interleaved, and the best counts.
"""

import os

import command
import numpy as np
from peers import Child, Unavailable
from workloads import WORKLOADS

OURS, PEER = "fastcurv", "jax-linearize"
DEFAULT_WORKLOADS = ("tiny", "digits", "mnist-128", "mnist")


def main(argv=None):
    parser = command.parser(__doc__)
    command.add_names_option(parser, "--workload", WORKLOADS, DEFAULT_WORKLOADS)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the CPU (all)")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default 15)")
    args = parser.parse_args(argv)
    os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    with command.run(args) as numbers:
        compare_libraries(args, numbers)


def compare_libraries(args, numbers):
    """Print the seconds of a product by both libraries, one row a workload."""
    children = {OURS: Child(OURS, args.threads), PEER: Child(PEER, args.threads)}
    numbers["rows"] = []
    try:
        print(f"{'ms a product':<58}{'flops':>10}{OURS:>12}{PEER:>16}")
        for name in args.workload:
            command.begin_step(name)
            best = seconds_by_library(children, name, args)
            numbers["rows"].append({"workload": name, "seconds": best})
            here, there = (
                f"{1e3 * best[label]:.3f}" if label in best else "-" for label in (OURS, PEER)
            )
            workload = WORKLOADS[name]
            print(f"{workload!s:<58}{workload.flops():>10.0e}{here:>12}{there:>16}", flush=True)
        if PEER in best:
            numbers["device"] = children[PEER].ask(do="config")["text"]
            print(f"\nJAX's device: {numbers['device']}")
    finally:
        for child in children.values():
            child.close()


def seconds_by_library(children, name, args):
    """Return the seconds of a product by library, without JAX if it is not installed."""
    repeats, seconds = {}, {}
    for label, child in children.items():
        call = "product-out" if label == OURS else "product"
        try:
            child.ask(do="build", workload=name, dtype="float32", threads=args.threads)
        except Unavailable as reason:
            if label == OURS:
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

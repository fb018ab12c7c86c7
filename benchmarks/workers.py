"""Workers of Dask on this machine: the speed-up of two over one, the parts of the time of a
product, and the modelled time with 64 workers.

    python benchmarks/workers.py [--rows 8000] [--vectors 16] [--shards 16]

Measured: a product with 1 worker and with 2, one thread each (results must be bitwise identical);
the time of an empty task, by itself and among many; the time to transfer an array to a worker. The
cost model, for K shards on W workers, n parameters, k vectors:

    out       n k s bytes from the scheduler to one worker, then from worker to worker in
              ceil(log2 W) rounds, in which every worker that has them sends them to another
    leaves    the shards of each worker one after the other: the slowest worker counts
    sums      a tree of eight parts a sum: a sum waits for its parts, and n k 8 bytes of each part
              on another worker are transferred one after the other
    tasks     started by the scheduler one after the other

The model's times for 1 and 2 workers can be compared with the measured ones.
"""

import math
import time
from functools import partial

import command
import numpy as np

import fastcurv as fc
from fastcurv.common.optional import optional_import
from fastcurv.network.sums import TREE_ARITY


def random_shard(rows, sizes, number):
    rng = np.random.default_rng(number)
    return rng.standard_normal((rows, sizes[0])), rng.integers(sizes[-1], size=rows)


def do_nothing(x=None, *more):
    return 0


def least_seconds(action, repeat):
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def measure_product(n_workers, args, sizes):
    """Return the seconds of a product with this many workers, its result, and the time of its
    parts: latency, seconds a task and seconds a byte.
    """
    with optional_import("workers", "dask"):
        from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=n_workers, threads_per_worker=1, dashboard_address=None, memory_limit=0
        ) as cluster,
        Client(cluster) as client,
    ):
        model = fc.MLP(sizes)
        make = partial(random_shard, args.rows // args.shards, sizes)
        ob = fc.distributed.Objective(
            model, [partial(make, i) for i in range(args.shards)], client=client
        )
        theta = model.init(rng=0)
        V = np.random.default_rng(0).standard_normal((model.n_params, args.vectors))
        H = ob.hessian(theta)
        found = H @ V  # computes the state
        took = least_seconds(lambda: H @ V, args.repeat)
        small = least_seconds(lambda: client.submit(do_nothing, pure=False).result(), 30)
        many = least_seconds(
            lambda: client.gather(client.map(do_nothing, range(200), pure=False)), 3
        )
        block = np.ones(1_200_000)  # smaller than the arrays for which Dask warns
        sent = least_seconds(lambda: client.submit(do_nothing, block, pure=False).result(), 5)
        return took, found, (small, (many - small) / 200, max(sent - small, 1e-9) / block.nbytes)


def modelled_seconds(W, K, leaf, nbytes, latency, task, byte):
    """Return the seconds of one product by the model at the head of this file."""
    move = latency + nbytes * byte
    ready = [task * (i + 1) + move * (1 + math.ceil(math.log2(W))) for i in range(K)]
    free = [0.0] * W
    level = []
    for i in range(K):
        w = i * W // K
        free[w] = max(free[w], ready[i]) + leaf
        level.append((free[w], w))
    while len(level) > 1:
        above = []
        for i in range(0, len(level), TREE_ARITY):
            group = level[i : i + TREE_ARITY]
            home = group[0][1]
            done = max(free[home], max(t for t, _ in group)) + task
            done += sum(move for _, w in group if w != home)
            free[home] = done
            above.append((done, home))
        level = above
    return level[0][0] + move


def main():
    parser = command.parser(__doc__)
    parser.add_argument("--rows", type=int, default=8_000, help="in all (default 8000)")
    parser.add_argument("--sizes", default="64,128,128,10", help="of the net (default %(default)s)")
    parser.add_argument("--vectors", type=int, default=16, help="multiplied at once (default 16)")
    parser.add_argument("--shards", type=int, default=16, help="of the rows (default 16)")
    parser.add_argument("--repeat", type=int, default=3, help="the best counts (default 3)")
    args = parser.parse_args()
    with command.run(args) as numbers:
        measure_workers(args, numbers)


def measure_workers(args, numbers):
    """Measure one and two workers, and print the modelled times of more."""
    sizes = [int(m) for m in args.sizes.split(",")]
    command.begin_step("one worker")
    one, first, (latency, task, byte) = measure_product(1, args, sizes)
    command.begin_step("two workers")
    two, second, _ = measure_product(2, args, sizes)
    assert np.array_equal(first, second), "the results of one and two workers differ"
    n = fc.MLP(sizes).n_params
    nbytes, flops = 8 * n * args.vectors, 12 * args.rows * args.vectors * n
    print(f"{sizes}, n = {n}, {args.rows} rows in {args.shards} shards, {args.vectors} vectors")
    print(f"1 worker of 1 thread   {one:7.3f} s   {flops / one / 1e9:6.1f} GF/s")
    print(f"2 workers of 1 thread  {two:7.3f} s   efficiency {one / two / 2:.0%}, the same bits")
    print(
        f"a task alone {1e3 * latency:.2f} ms, among many {1e3 * task:.2f} ms; "
        f"{1e-6 / byte:.0f} MB/s; a block of vectors is {nbytes / 1e6:.1f} MB"
    )
    leaf = (one - modelled_seconds(1, args.shards, 0.0, nbytes, latency, task, byte)) / args.shards
    print(f"a shard's product {leaf:.4f} s, {flops / args.shards / 1e9:.2f} GF")
    numbers |= {"one": one, "two": two, "latency": latency, "task": task, "byte": byte}
    numbers["modelled"] = []
    print("\nby the model   as many shards as here     8 shards a worker        bytes moved")
    print("workers         seconds   efficiency     seconds   efficiency     a product, MB")
    for W in (1, 2, 4, 8, 16, 32, 64):
        K = max(args.shards, W)
        strong = modelled_seconds(W, K, leaf * args.shards / K, nbytes, latency, task, byte)
        base = modelled_seconds(1, args.shards, leaf, nbytes, latency, task, byte)
        weak = modelled_seconds(W, 8 * W, leaf, nbytes, latency, task, byte)
        ideal = modelled_seconds(1, 8, leaf, nbytes, latency, task, byte)
        numbers["modelled"].append([W, strong, weak])
        moved = (W + max(0, W - 1) + 1) * nbytes / 1e6
        print(
            f"{W:7d}   {strong:13.3f}   {base / strong / W:10.0%}   {weak:9.3f}   "
            f"{ideal / weak:10.0%}   {moved:15.1f}"
        )


if __name__ == "__main__":
    main()

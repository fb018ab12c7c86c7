"""Rows that are read block by block against the same rows in memory: time and peak of one run.

    python benchmarks/streaming.py [--rows 200000] [--memory 16e6]

The file is in the page cache, since it has just been written. Contenders: `Objective` with all
state in memory; `Objective` with the same bound on its state, which recomputes the state for each
product as a pass over blocks does; `StreamedObjective`.
"""

import itertools
import tempfile
import time
from pathlib import Path

import command
import numpy as np

import fastcurv as fc


def least_seconds(actions, repeat):
    """Return the shortest time of each action, measured in turns."""
    times = [np.inf] * len(actions)
    for number in range(repeat):
        command.begin_step(f"round {number + 1} of {repeat}")
        for i, action in enumerate(actions):
            start = time.perf_counter()
            action()
            times[i] = min(times[i], time.perf_counter() - start)
    return times


def write_rows(path, N, d, rng):
    X = np.lib.format.open_memmap(path, "w+", shape=(N, d))
    for start in range(0, N, 10_000):
        X[start : start + 10_000] = rng.standard_normal((min(10_000, N - start), d))
    X.flush()


def main():
    parser = command.parser(__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="(default %(default)s)")
    parser.add_argument("--sizes", default="64,64,32,10", help="of the net (default %(default)s)")
    parser.add_argument(
        "--memory", type=float, default=16e6, help="bytes of state (default 16 million)"
    )
    parser.add_argument("--repeat", type=int, default=5, help="the best counts (default 5)")
    parser.add_argument("--folder", default=None, help="where the file is written")
    args = parser.parse_args()
    with command.run(args) as numbers:
        compare_sources(args, numbers)


def compare_sources(args, numbers):
    """Print the table of three contenders and three jobs."""
    sizes, rng = [int(m) for m in args.sizes.split(",")], np.random.default_rng(0)
    model = fc.MLP(sizes)
    theta, v = model.init(rng=0), rng.standard_normal(model.n_params)
    V, y = rng.standard_normal((model.n_params, 8)), rng.integers(sizes[-1], size=args.rows)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "X.npy"
        write_rows(path, args.rows, sizes[0], rng)
        X, memory = np.load(path), int(args.memory)
        contenders = {
            "in memory": fc.Objective(model, X, y),
            "in memory, bounded": fc.Objective(model, X, y, memory=memory),
            "streamed": fc.StreamedObjective(model, path, y, memory=memory),
        }
        data = X.nbytes / 1e6
        print(f"{sizes}, {args.rows} rows, {data:.0f} MB, bound {memory / 1e6:.0f} MB")
        print(f"blocks of {contenders['streamed'].block_rows} rows")
        print(f"{'seconds':22}{'gradient':>10}{'product':>10}{'8 products':>12}")
        operators = {name: ob.hessian(theta) for name, ob in contenders.items()}
        points = (theta + 1e-9 * i for i in itertools.count(1))
        columns = [
            least_seconds(
                [lambda ob=ob: ob.gradient(next(points)) for ob in contenders.values()], args.repeat
            ),
            least_seconds([lambda H=H: H @ v for H in operators.values()], args.repeat),
            least_seconds([lambda H=H: H @ V for H in operators.values()], args.repeat),
        ]
        numbers |= (found := dict(zip(contenders, zip(*columns))))
        for name, times in found.items():
            print(f"{name:22}{times[0]:10.3f}{times[1]:10.3f}{times[2]:12.3f}")
        for name in ("in memory", "in memory, bounded"):
            ratios = [a / b for a, b in zip(found["streamed"], found[name])]
            print(f"{'streamed / ' + name:32}" + "".join(f"{r:8.2f}" for r in ratios))


if __name__ == "__main__":
    main()

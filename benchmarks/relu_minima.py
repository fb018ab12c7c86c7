"""How many small relu nets with l2 end at a proved minimum, straight from `fc.minimize`.

    python benchmarks/relu_minima.py [--nets 40] [--first 0] [--only 3 17] [--max-time 60]

Net i has a shape, a loss, N rows and l2 drawn from seed i: nothing in the package is tuned to a
seed. One line for each: how it ended, how many kinks hold it, the seconds, and what is missing
where nothing is proved; then the counts by class.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import Any

import command
import numpy as np

import fastcurv as fc

SHAPES = ((4,), (6,), (10,), (16,), (4, 4), (6, 5), (8, 4), (5, 4, 3))
L2 = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
OUT = {"mse": (1, 2), "binary_cross_entropy": (1,), "cross_entropy": (3,)}


def net(i: int) -> tuple[Any, np.ndarray, str]:
    """Objective, start and a name."""
    rng = np.random.default_rng([2026, i])
    loss = list(OUT)[int(rng.integers(3))]
    n_in, n_out = int(rng.integers(1, 7)), int(rng.choice(OUT[loss]))
    hidden = SHAPES[int(rng.integers(len(SHAPES)))]
    N, l2 = int(round(20 * 10 ** rng.uniform())), L2[int(rng.integers(len(L2)))]
    X = rng.standard_normal((N, n_in))
    clean = np.sin(2 * X @ rng.standard_normal((n_in, n_out)) / n_in**0.5)
    noisy = clean + 0.3 * rng.standard_normal(clean.shape)
    y: Any = noisy
    if loss == "binary_cross_entropy":
        y = (noisy[:, 0] > 0).astype(float)
    elif loss == "cross_entropy":
        y = np.argmax(noisy, axis=1)
    model = fc.MLP([n_in, *hidden, n_out], activation="relu")
    ob = fc.Objective(model, X, y, loss=loss, l2=l2)
    name = f"{'-'.join(map(str, model.sizes))} {loss[:6]} N {N} l2 {l2:g}"
    return ob, model.init(seed=i), name


def stage(found: Any) -> str:
    """The class of an ending: numbers taken out of what is missing."""
    if found.success:
        return "certified" if found.report is not None and found.report.certified else "measured"
    missing = getattr(found.report, "missing", None)
    if missing:
        return "held: " + re.sub(r"[-+0-9.e]{3,}.*", "", missing)
    return f"{found.stopped}, {found.kind}"


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--nets", type=int, default=40, help="how many (default 40: minutes)")
    parser.add_argument("--first", type=int, default=0, help="the first one's seed (default 0)")
    parser.add_argument("--only", type=int, nargs="*", metavar="SEED", help="these nets alone")
    parser.add_argument(
        "--max-time", type=float, default=60.0, help="seconds a net may take (default 60)"
    )
    ask = parser.parse_args()
    with command.run(ask) as numbers:
        train_all(ask, numbers)


def train_all(ask: Any, numbers: dict[str, Any]) -> None:
    """One line a net, then the counts."""
    counts: Counter[str] = Counter()
    chosen = ask.only or range(ask.first, ask.first + ask.nets)
    numbers["nets"] = []
    for i in chosen:
        ob, start, name = net(i)
        command.step(f"net {i}, {name}")
        began = time.perf_counter()
        found = fc.minimize(ob, start, seed=0, max_time=ask.max_time)
        took = time.perf_counter() - began
        kinks = getattr(found.report, "n_kinks", 0) or 0
        counts[stage(found)] += 1
        numbers["nets"].append(
            {"seed": i, "net": name, "seconds": took, "kinks": kinks, "end": stage(found)}
        )
        print(
            f"{i:3d} {name:34s} n {ob.n_params:3d} {took:5.1f} s  {kinks:3d} kinks  {stage(found)}"
            + ("" if found.success else f"  | {found.message[:150]}"),
            flush=True,
        )
    total = sum(counts.values())
    print()
    for what, count in counts.most_common():
        print(f"{count:3d} of {total}  {what}")


if __name__ == "__main__":
    main()

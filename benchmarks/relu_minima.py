"""How many small relu nets with l2 end at a proved minimum, straight from `fc.minimize`.

    python benchmarks/relu_minima.py [--nets 40] [--first 0] [--only 3 17] [--max-time 60]

Net i has a shape, a loss, N rows and l2 drawn from seed i: nothing in the package is tuned to a
seed. The table has one line for each: how the run ended, the number of active kinks, the seconds,
and what a proof lacks; the counts by class follow.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import Any

import command
import numpy as np

import fastcurv as fc

HIDDEN_SIZES = ((4,), (6,), (10,), (16,), (4, 4), (6, 5), (8, 4), (5, 4, 3))
L2_VALUES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
N_OUTPUTS = {"mse": (1, 2), "binary_cross_entropy": (1,), "cross_entropy": (3,)}


def random_net(i: int) -> tuple[Any, np.ndarray, str]:
    """Return the objective, the start and the name of net i."""
    rng = np.random.default_rng([2026, i])
    loss = list(N_OUTPUTS)[int(rng.integers(3))]
    n_in, n_out = int(rng.integers(1, 7)), int(rng.choice(N_OUTPUTS[loss]))
    hidden = HIDDEN_SIZES[int(rng.integers(len(HIDDEN_SIZES)))]
    N, l2 = int(round(20 * 10 ** rng.uniform())), L2_VALUES[int(rng.integers(len(L2_VALUES)))]
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
    return ob, model.init(rng=i), name


def end_class(found: Any) -> str:
    """Return the class of a result; the numbers in what a proof lacks are left out."""
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
    args = parser.parse_args()
    with command.run(args) as numbers:
        train_all(args, numbers)


def train_all(args: Any, numbers: dict[str, Any]) -> None:
    """Train all nets, print one line for each, then the counts."""
    counts: Counter[str] = Counter()
    chosen = args.only or range(args.first, args.first + args.nets)
    numbers["nets"] = []
    for i in chosen:
        ob, start, name = random_net(i)
        command.begin_step(f"net {i}, {name}")
        began = time.perf_counter()
        found = fc.minimize(ob, start, rng=0, max_time=args.max_time)
        took = time.perf_counter() - began
        kinks = getattr(found.report, "n_kinks", 0) or 0
        counts[end_class(found)] += 1
        numbers["nets"].append(
            {"seed": i, "net": name, "seconds": took, "kinks": kinks, "end": end_class(found)}
        )
        print(
            f"{i:3d} {name:34s} n {ob.n_params:3d} {took:5.1f} s  {kinks:3d} kinks  "
            f"{end_class(found)}" + ("" if found.success else f"  | {found.message[:150]}"),
            flush=True,
        )
    total = sum(counts.values())
    print()
    for what, count in counts.most_common():
        print(f"{count:3d} of {total}  {what}")


if __name__ == "__main__":
    main()

"""How often `curvature_floor` certifies a minimum that would be undecided without it.

    python benchmarks/curvature_floor.py [--nets 200] [--first 0]

Net i is smooth and small, of a shape, data, loss and l2 (1e-4 to 1e-1) drawn from seed i, and
trained until it converges. Each is classified three times: with its whole matrix; as if it were
too large for that; and again as if too large, without the floor. Then the counts are printed.
"""

from collections import Counter

import command
import numpy as np

import fastcurv as fc

ACTIVATIONS = ("tanh", "sigmoid", "softplus", "gelu")


class Floorless(fc.Objective):
    """An objective without a lower bound on the curvature."""

    certificates = fc.Objective.certificates

    def curvature_floor(self, theta):
        return -np.inf


def random_net(i):
    """Return model, features, targets, loss and l2 of net i."""
    rng = np.random.default_rng(i)
    hidden = [int(rng.integers(2, 10)) for _ in range(rng.integers(1, 3))]
    sizes = [int(rng.integers(2, 9)), *hidden, int(rng.integers(1, 4))]
    N, activation = int(rng.integers(20, 200)), str(rng.choice(ACTIVATIONS))
    l2 = float(10 ** rng.uniform(-4, -1))
    X = rng.standard_normal((N, sizes[0]))
    if sizes[-1] > 1 and rng.random() < 0.6:
        y, loss = rng.integers(0, sizes[-1], N), "cross_entropy"
    else:
        y, loss = np.tanh(X @ rng.standard_normal((sizes[0], sizes[-1]))), "mse"
        y += 0.3 * rng.standard_normal(y.shape)
    return (fc.MLP(sizes, activation=activation), X, y, loss, l2)


def kind_of(point):
    return f"{point.kind}{', certified' if point.certified else ''}"


def main():
    parser = command.parser(__doc__)
    parser.add_argument("--nets", type=int, default=200, help="how many (default 200: minutes)")
    parser.add_argument("--first", type=int, default=0, help="the first one's seed (default 0)")
    args = parser.parse_args()
    with command.run(args) as numbers:
        count_kinds(args, numbers)


def count_kinds(args, numbers):
    counts = Counter()
    for i in range(args.first, args.first + args.nets):
        if (i - args.first) % 10 == 0:
            command.begin_step(f"net {i - args.first + 1} of {args.nets}")
        facts = random_net(i)
        ob = fc.Objective(*facts)
        theta = fc.minimize(ob, ob.model.init(rng=i), max_time=10).x
        points = (
            fc.classify(ob, theta),
            fc.classify(ob, theta, dense_below=0),
            fc.classify(Floorless(*facts), theta, dense_below=0),
        )
        counts[tuple(kind_of(point) for point in points)] += 1
    numbers["kinds"] = [[*kinds, count] for kinds, count in counts.most_common()]
    print(f"{'nets':>5}  {'whole matrix':24}{'as if large':24}without the floor")
    for kinds, count in counts.most_common():
        print(f"{count:>5}  " + "".join(f"{text:24}" for text in kinds))


if __name__ == "__main__":
    main()

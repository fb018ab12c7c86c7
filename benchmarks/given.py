"""The cost of a user-defined loss or activation in NumPy, relative to one with kernels.

    python benchmarks/given.py [--net small two-layers --rounds 25]

Ratios of times to those of the same net with `mse` and `tanh`: of a gradient at a new theta, for
which the function is called, and of a product with the Hessian, for which it is not. The functions
are user-defined squares and tanh, and `poisson`, whose formula is evaluated in NumPy. One thread,
processor time, all variants in turns, the median of the rounds' ratios.
"""

import statistics
import time

import command
import numpy as np

import fastcurv as fc

NETS = {  # sizes and rows
    "small": ((10, 50, 1), 1000),
    "narrow": ((10, 20, 20, 1), 2000),
    "one-layer": ((10, 100, 1), 10_000),
    "two-layers": ((10, 50, 50, 1), 10_000),
    "outputs": ((30, 64, 10), 5000),
}
CALLS = ("gradient", "product")
MAX_PRODUCT_RATIO = 1.05  # of a product with a user-defined loss or poisson to that with mse


def squares(z, y):
    r = z - y
    return (r * r).mean(axis=1), 2 * r / z.shape[1], np.full_like(r, 2 / z.shape[1])


def tanh(z):
    a = np.tanh(z)
    p = 1 - a * a
    return a, p, -2 * a * p


VARIANTS = {  # activation and loss
    "mse": ("tanh", "mse"),
    "squares": ("tanh", fc.Loss(squares)),
    "poisson": ("tanh", "poisson"),
    "own tanh": (fc.Activation(tanh), "mse"),
    "gelu": ("gelu", "mse"),
}


def main(argv=None):
    parser = command.parser(__doc__, bounds=True)
    command.add_names_option(parser, "--net", list(NETS))
    parser.add_argument("--rounds", type=int, default=25, help="of all variants (default 25)")
    args = parser.parse_args(argv)
    others = list(VARIANTS)[1:]
    with command.run(args) as numbers:
        heads = (f"{call + ' us':>13s}" + "".join(map("{:>10s}".format, others)) for call in CALLS)
        print(" " * 12 + "".join(heads))
        for net in args.net:
            command.begin_step(net)
            numbers[net] = row = time_calls(*NETS[net], args.rounds)
            print(
                f"{net:12s}" + "".join(format_ratios(row[call], others) for call in CALLS),
                flush=True,
            )
        if args.bounds:
            for net, row in numbers.items():
                worst = max(row["product"][name] for name in ("squares", "poisson"))
                command.print_bound(
                    worst <= MAX_PRODUCT_RATIO, f"{net}: a product takes {worst:.2f} of mse's"
                )


def format_ratios(row, others):
    return f"{row['mse']:13.1f}" + "".join(f"{row[name]:10.2f}" for name in others)


def time_calls(sizes, rows, rounds):
    """Return for each call the microseconds with `mse`, and the ratio of each variant to them."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((rows, sizes[0])), rng.poisson(1.0, (rows, sizes[-1])).astype(float)
    calls = {name: calls_of(sizes, *kind, X, y) for name, kind in VARIANTS.items()}
    found = {}
    for call in CALLS:
        repeat = max(2, int(0.01 / seconds_of(calls["mse"][call], 2)))
        times = [{name: seconds_of(made[call], repeat) for name, made in calls.items()}
                 for _ in range(rounds)]  # fmt: skip
        found[call] = {
            name: statistics.median(one[name] / one["mse"] for one in times) for name in calls
        }
        found[call]["mse"] = 1e6 * min(one["mse"] for one in times)
    return found


def calls_of(sizes, activation, loss, X, y):
    """Return two calls by name: a gradient at another theta each time, and a product with the
    Hessian of a second objective.
    """
    model = fc.MLP(list(sizes), activation)
    ob, other = (fc.Objective(model, X, y, loss, n_threads=1) for _ in range(2))
    thetas, turn = [model.init(rng=k) for k in range(4)], [0]
    H, v = other.hessian(thetas[0]), thetas[1]

    def gradient():
        turn[0] = (turn[0] + 1) % 4
        ob.value_and_gradient(thetas[turn[0]])

    return {"gradient": gradient, "product": lambda: H @ v}


def seconds_of(call, repeat):
    call()
    begin = time.process_time()
    for _ in range(repeat):
        call()
    return max(1e-7, (time.process_time() - begin) / repeat)


if __name__ == "__main__":
    main()

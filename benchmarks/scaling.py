"""The time of a product as the batch, the number of samples and the number of parameters grow.

    python benchmarks/scaling.py --out scaling.png

Three pictures in one file: time per sample against batch size (a matrix-matrix product uses each
weight many times), time against N, and time against n, on log axes with the slope that proportional
cost would have.
"""

import time

import command
import numpy as np

import fastcurv as fc

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
N_SAMPLES = (100, 300, 1000, 3000, 10_000, 30_000)
WIDTHS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)


def main(argv=None):
    args = parse_arguments(argv)
    with command.run(args) as numbers:
        draw_pictures(args, numbers)


def draw_pictures(args, numbers):
    """Time the nets, and draw three pictures."""
    from fastcurv import plots

    fc.show_versions()
    figure = plots.new_figure((11.0, 3.6))
    axes = figure.subplots(1, 3)
    for dtype, color in (("float32", plots.BLUE), ("float64", plots.ORANGE)):
        batches = [
            time_product((784, 512, 512, 10), n, dtype, args)
            for n in BATCH_SIZES
            if n <= args.limit
        ]
        plot_times(
            axes[0], "us per sample", [(n, 1e6 * t / n) for n, _, t in batches], dtype, color
        )
        samples = [
            time_product((64, 32, 16, 10), n, dtype, args)
            for n in N_SAMPLES
            if n <= 10 * args.limit
        ]
        plot_times(axes[1], "ms", [(n, 1e3 * t) for n, _, t in samples], dtype, color)
        widths = [time_product((64, w, w, 10), 256, dtype, args) for w in WIDTHS if w <= args.limit]
        numbers[dtype] = {"batches": batches, "samples": samples, "widths": widths}
        plot_times(axes[2], "ms", [(n, 1e3 * t) for _, n, t in widths], dtype, color)
    for ax, label in zip(
        axes, ("batch size, net 784-512-512-10", "N, net 64-32-16-10", "n, nets 64-w-w-10, N 256")
    ):
        ax.set_xscale("log")
        ax.set_yscale("log")
        plots.plain_numbers(ax.xaxis, ax.yaxis)
        ax.set_xlabel(label)
    for ax in axes[1:]:
        plot_slope_one(ax)
    axes[0].legend(frameon=False)
    figure.savefig(args.out, dpi=160)
    print(f"picture: {args.out}")


def parse_arguments(argv):
    parser = command.parser(__doc__)
    parser.add_argument(
        "--out", default="scaling.png", help="picture to write (default %(default)s)"
    )
    parser.add_argument("--threads", type=int, help="(default as many as processors)")
    parser.add_argument(
        "--limit", type=int, default=4096, help="largest batch and width (default %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=0.3, help="spent on each measurement")
    args = parser.parse_args(argv)
    if args.limit < 10:
        parser.error(f"--limit is {args.limit}; wanted at least 10")
    return args


def time_product(sizes, n_samples, dtype, args):
    """Return ``(N, n, seconds)`` of one cached product, the best of many."""
    command.begin_step(f"{dtype}, {'-'.join(map(str, sizes))}, N {n_samples}")
    rng = np.random.default_rng(0)
    model = fc.MLP(sizes, activation="tanh", dtype=dtype)
    X = rng.standard_normal((n_samples, sizes[0]))
    y = rng.integers(sizes[-1], size=n_samples)
    objective = fc.Objective(model, X, y, loss="cross_entropy", n_threads=args.threads)
    hessian = objective.hessian(model.init(rng=0))
    v = rng.standard_normal(model.n_params).astype(dtype)
    out = np.empty_like(v)
    hessian.product(v, out=out)
    best, end = np.inf, time.perf_counter() + args.seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        hessian.product(v, out=out)
        best = min(best, time.perf_counter() - start)
    return n_samples, model.n_params, best


def plot_times(ax, ylabel, points, dtype, color):
    x, y = np.transpose(points)
    ax.plot(x, y, "o-" if dtype == "float32" else "s--", ms=4, color=color, label=dtype)
    ax.set_ylabel(f"{ylabel} for one product")
    print(
        f"{dtype} {ax.get_ylabel()}: " + "  ".join(f"{int(a)}: {b:.4g}" for a, b in points),
        flush=True,
    )


def plot_slope_one(ax):
    """Draw a grey line of slope one through the last point of the first curve."""
    from fastcurv import plots

    x, y = ax.lines[0].get_data()
    ax.plot(
        x, y[-1] * np.asarray(x) / x[-1], color=plots.GREY, lw=0.8, ls=":", label="proportional"
    )
    ax.legend(frameon=False)


if __name__ == "__main__":
    main()

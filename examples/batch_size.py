"""L16. The error of a gradient from a batch of b samples falls as 1 / sqrt(b), and each sample
costs less: matrix-vector products become matrix-matrix products, which are faster.

Left: the distance between the gradient of a random batch and that of all samples, relative to its
norm, at five points of one training run. Right: the time for each sample of a gradient and of a
Hessian product on one thread. It is processor time, so other work on the machine has little effect.

Half right: that 128 is a size to choose. On the left nothing special happens at 128. On the right
it is near the lowest time on this machine, which is marked.

Not shown: benefits of the noise of small batches, and graphics processors.
"""

import time

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    width = pick(scale, 64, 512, 1024)
    model = fc.MLP([784, width, width, 10], activation="tanh", dtype="float32")
    rng = np.random.default_rng(0)
    sizes = [2**k for k in range(0, pick(scale, 9, 12, 14))]
    X = rng.standard_normal((sizes[-1], 784)).astype("float32")
    ob = fc.Objective(model, X, rng.integers(10, size=sizes[-1]), loss="cross_entropy", n_threads=1)
    theta = model.init(rng=0)
    v = rng.standard_normal(model.n_params).astype("float32")
    points = [theta, theta * np.float32(0.99)]
    times = {"gradient": [], "Hessian product": []}
    for size in sizes:
        batch = ob.batch(np.arange(size))
        hessian = batch.hessian(theta)
        seconds = pick(scale, 0.02, 0.3, 1.0)
        times["gradient"].append(
            least_seconds(lambda k, batch=batch: batch.value_and_gradient(points[k % 2]), seconds)
            / size
        )
        times["Hessian product"].append(
            least_seconds(lambda k, hessian=hessian: hessian @ v, seconds) / size
        )

    batches, errors = gradient_errors(scale)
    figure = plots.new_figure((7.6, 4.2))
    left, right = figure.subplots(1, 2)
    left.fill_between(batches, errors.min(axis=1), errors.max(axis=1), color=plots.SKY, alpha=0.4)
    left.plot(batches, np.median(errors, axis=1), "o-", color=plots.BLUE, label="five points")
    theory = np.median(errors, axis=1)[0] / np.sqrt(batches)
    left.plot(batches, theory, "--", color=plots.GREY, label=r"$1/\sqrt{b}$")
    left.set_yscale("log")
    left.set_ylabel("error of the gradient / its norm")
    left.set_title("Four times the batch,\nhalf the error")
    left.legend(frameon=False)
    for name, per_sample in times.items():
        plots.curve(sizes, 1e6 * np.array(per_sample), right, label=name)
    right.axvline(128, color=plots.GREY, ls=":", lw=1, label="$b = 128$")
    right.set_title("A sample costs less the\nlarger its batch")
    right.set_ylabel("microseconds per sample")
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.set_xticks([1, 8, 64, 512, 4096][: 3 if ax is left else 2 + len(sizes) // 4])
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xlabel("batch size $b$")
    right.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_formatter("")
    gain = {name: per_sample[0] / min(per_sample) for name, per_sample in times.items()}
    slope = np.polyfit(np.log(batches), np.log(np.median(errors, axis=1)), 1)[0]
    return Outcome(
        f"The error of a batch's gradient falls like b to the power {slope:.2f}. "
        f"A sample costs {1e6 * times['gradient'][0]:.0f} us alone and "
        f"{1e6 * min(times['gradient']):.2f} us in the best "
        f"batch ({gain['gradient']:.0f}x) for a gradient, {gain['Hessian product']:.0f}x less for "
        "a Hessian product; "
        f"half of the gain is there at a batch of {half_gain(sizes, times['gradient'])}.",
        save(figure, __file__, out),
        {"gain": gain, "times": times, "slope": slope, "errors": errors, "batches": batches},
    )


def gradient_errors(scale):
    """Return the root mean square of ||g_batch - g|| / ||g|| by batch size, (sizes, points); each
    row of a batch is drawn from all rows.
    """
    X, y = digits(1000)
    ob = fc.Objective(fc.MLP([64, 24, 10]), X, y, loss="cross_entropy")
    batches = 2 ** np.arange(0, 9, pick(scale, 2, 1, 1))
    n_draws = pick(scale, 100, 300, 3000)
    errors = []
    for point in range(5):
        theta, rng = ob.model.init(rng=point), np.random.default_rng(point)
        if point:
            options = {"max_iter": 2 * point, "batch_size": 64, "rng": point, "verdict": False}
            theta = fc.minimize(ob, theta, "sgd", **options).x
        g = ob.gradient(theta)
        draws = [[rng.integers(1000, size=b) for _ in range(n_draws)] for b in batches]
        squares = [
            np.mean([np.sum((ob.batch(rows).gradient(theta) - g) ** 2) for rows in of_size])
            for of_size in draws
        ]
        errors.append(np.sqrt(squares) / np.linalg.norm(g))
    return batches, np.transpose(errors)


def least_seconds(call, seconds):
    """Return the shortest time of the calls that fit into ``seconds``."""
    call(0)
    shortest, number, end = np.inf, 0, time.process_time() + seconds
    while time.process_time() < end:
        number += 1
        start = time.process_time()
        call(number)
        shortest = min(shortest, time.process_time() - start)
    return shortest


def half_gain(sizes, per_sample):
    """Return the first size whose rate is at least half of the best."""
    return next(size for size, t in zip(sizes, per_sample) if t <= 2 * min(per_sample))


if __name__ == "__main__":
    command_line(main)

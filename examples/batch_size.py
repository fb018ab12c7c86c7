"""L16. Mini-batches turn matrix-vector products into matrix-matrix products, which is where the
hardware is fast.

Time per sample of a gradient and of a Hessian product against the size of the batch, on one thread:
processor time, so that other work on the machine counts little.
"""

import time

import numpy as np
from common import Outcome, command_line, pick, save

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    width = pick(scale, 64, 512, 1024)
    model = fc.MLP([784, width, width, 10], activation="tanh", dtype="float32")
    rng = np.random.default_rng(0)
    sizes = [2**k for k in range(0, pick(scale, 9, 12, 14))]
    X = rng.standard_normal((sizes[-1], 784)).astype("float32")
    ob = fc.Objective(model, X, rng.integers(10, size=sizes[-1]), loss="cross_entropy", n_threads=1)
    theta = model.init(seed=0)
    v = rng.standard_normal(model.n_params).astype("float32")
    points = [theta, theta * np.float32(0.99)]
    times = {"gradient": [], "Hessian product": []}
    for size in sizes:
        batch = ob.batch(np.arange(size))
        hessian = batch.hessian(theta)
        seconds = pick(scale, 0.02, 0.3, 1.0)
        times["gradient"].append(
            best(lambda k, batch=batch: batch.value_and_gradient(points[k % 2]), seconds) / size
        )
        times["Hessian product"].append(
            best(lambda k, hessian=hessian: hessian @ v, seconds) / size
        )

    ax = plots.new_axes()
    for name, per_sample in times.items():
        plots.curve(sizes, 1e6 * np.array(per_sample), ax, label=name)
    ax.set_xscale("log", base=2)
    ax.set_xticks([1, 8, 64, 512, 4096][: 2 + len(sizes) // 4])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_title("A sample costs less the larger its batch, down to a floor")
    ax.set_xlabel("batch size")
    ax.set_ylabel("microseconds per sample")
    gain = {name: per_sample[0] / min(per_sample) for name, per_sample in times.items()}
    return Outcome(
        f"A sample costs {1e6 * times['gradient'][0]:.0f} us alone and "
        f"{1e6 * min(times['gradient']):.2f} us in the best "
        f"batch ({gain['gradient']:.0f}x) for a gradient, {gain['Hessian product']:.0f}x less for "
        "a Hessian product; "
        f"half of the gain is there at a batch of {half_gain(sizes, times['gradient'])}.",
        save(ax, __file__, out),
        {"gain": gain, "times": times},
    )


def best(call, seconds):
    """The shortest of the calls that fit into ``seconds``."""
    call(0)
    shortest, number, end = np.inf, 0, time.process_time() + seconds
    while time.process_time() < end:
        number += 1
        start = time.process_time()
        call(number)
        shortest = min(shortest, time.process_time() - start)
    return shortest


def half_gain(sizes, per_sample):
    """The first size whose rate is at least half of the best."""
    return next(size for size, t in zip(sizes, per_sample) if t <= 2 * min(per_sample))


if __name__ == "__main__":
    command_line(main)

"""L18. The whole Hessian costs tens to hundreds of products with it, and more as n grows; one
product stays cheap.

For networks of growing width that read digits, the time of one product H v is compared with that of
the whole matrix. It has n columns; many are computed together, so it costs fewer than n products.
This is why methods for large networks use only products.

Not shown: the cost of an eigenvalue, which is tens to hundreds of products.
"""

import time

import numpy as np
from common import Outcome, command_line, digits, pick, save

import fastcurv as fc
from fastcurv import plots


def main(scale="normal", out="pictures"):
    X, y = digits(pick(scale, 200, 1000, 1797))
    n, whole, product = [], [], []
    for width in pick(scale, (2, 8), (2, 4, 8, 16, 28), (2, 4, 8, 16, 32, 64)):
        model = fc.MLP([64, width, 10])
        ob = fc.Objective(model, X, y, loss="cross_entropy", n_threads=1)
        hessian = ob.hessian(model.init(rng=0))
        v = np.ones(ob.n_params)
        n.append(ob.n_params)
        whole.append(mean_seconds(hessian.to_dense))
        product.append(mean_seconds(lambda H=hessian, v=v: H @ v))

    ratios = np.array(whole) / product
    ax = plots.new_axes()
    ax.loglog(n, whole, "o-", color=plots.RED, lw=2, ms=7, label="the whole Hessian")
    ax.loglog(n, product, "o-", color=plots.BLUE, lw=2, ms=7, label="one product $Hv$")
    ax.vlines(n, product, whole, color=plots.GREY, lw=1, ls=":")
    for size, low, high, ratio in zip(n, product, whole, ratios):
        ax.text(size, np.sqrt(low * high), rf"{ratio:.0f}$\times$ ", color=plots.GREY, ha="right")
    ax.set_xticks(n, labels=n)
    ax.set_xlim(n[0] / 1.6, n[-1] * 1.2)
    ax.minorticks_off()
    ax.set_xlabel("parameters $n$")
    ax.set_ylabel("seconds")
    ax.set_title("The whole Hessian costs tens\nto hundreds of products")
    ax.legend(frameon=False, loc="upper left")
    return Outcome(
        f"The whole Hessian took {ratios[0]:.0f} times as long as one product at n = {n[0]} and "
        f"{ratios[-1]:.0f} times at n = {n[-1]}, where a product took {1e3 * product[-1]:.2g} ms.",
        save(ax, __file__, out),
        {"n": n, "whole": whole, "product": product, "ratios": ratios},
    )


def mean_seconds(call, seconds=0.05):
    """Return the mean processor time of calls that take 0.05 s together, because some clocks
    advance in steps of milliseconds.
    """
    count, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        call()
        count += 1
    return (time.process_time() - start) / count


if __name__ == "__main__":
    command_line(main)

"""L1, L9. With ten million parameters, the scale of the lectures, a product with the Hessian is
quick, and a saddle is proved to be one.

"You are operating in a 20 000 dimensional space", "tens of millions of parameters": no matrix of
that order can be stored, but products with it can be computed. A network that reads digits is
trained until it converges to a minimum. It is then widened by units of zero weights up to n = 10
000 000, which keeps its function and makes the point a saddle. The time and memory of one product
with the Hessian, and of one verdict from at most 30 products, are those of one thread. `python
examples/experiments.py --only ten_million` measures them again, in a minute or two and 7 GB.

Not shown: a saddle of that size that training reached by itself; more than 20 samples, with which
times grow in proportion; and other machines, on which they differ.
"""

import resource
import time

import numpy as np
from common import Outcome, command_line, digits, pick, save, table_of
from critical import add_zero_units

import fastcurv as fc
from fastcurv import plots


def experiment(scale):
    """Return seconds and memory of a product and a verdict, from small networks to large ones."""
    X, y = digits(20)

    def objective(width):
        model = fc.MLP([64, width, 10])
        return fc.Objective(model, X, y, loss="cross_entropy", l2=1e-3, n_threads=1)

    narrow = objective(8)
    theta = fc.minimize(narrow, narrow.model.init(rng=0), "newton-cg", rng=0).x
    rows = []
    for n in pick(scale, (10**4, 10**5), 10 ** np.arange(4, 8), 10 ** np.arange(4, 8)):
        ob = objective(int(round(n / 75)))
        hessian = ob.hessian(add_zero_units(narrow.model, theta, ob.model))
        v = np.random.default_rng(0).standard_normal(ob.n_params)
        product = min(call_seconds(lambda: hessian @ v) for _ in range(3))  # noqa: B023
        rows.append({"n": ob.n_params, "product": product, "memory": peak_gigabytes()})
    for row in rows:  # all products before, since the memory that was once held stays counted
        ob, before = objective((row["n"] - 10) // 75), peak_gigabytes()
        wide = add_zero_units(narrow.model, theta, ob.model)
        start = time.process_time()
        found = fc.classify(ob, wide, max_products=30, rng=0)
        row |= {"verdict": time.process_time() - start, "kind": found.kind}
        row |= {"certified": int(found.certified), "products": found.n_products}
        row["verdict_memory"] = peak_gigabytes() if peak_gigabytes() > before else np.nan
    return rows


def call_seconds(call):
    """Return the processor time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def peak_gigabytes():
    """Return the peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(scale="normal", out="pictures"):
    table = table_of(__file__, experiment, scale)
    judged = table["certified"] == 1
    figure = plots.new_figure((7.6, 4.0))
    left, right = figure.subplots(1, 2)
    left.plot(table["n"], table["product"], "o-", color=plots.BLUE, label="one product with $H$")
    left.plot(
        table["n"][judged],
        table["verdict"][judged],
        "o--",
        color=plots.ORANGE,
        label="one verdict: a proved saddle",
    )
    left.set(xscale="log", yscale="log", xlabel="parameters $n$", ylim=(1e-5, 1e4))
    left.set_ylabel("seconds on one thread")
    left.set_title("Times grow\nas $n$ does")
    left.legend(frameon=False, loc="upper left", fontsize=10)
    right.plot(
        table["n"], table["memory"], "o-", color=plots.BLUE, label="all that a product needs"
    )
    right.plot(
        table["n"],
        table["verdict_memory"],
        "o--",
        color=plots.ORANGE,
        label="all that a verdict needs",
    )
    matrix = 8 * table["n"].astype(float) ** 2 / 2**30
    right.plot(table["n"], matrix, "--", color=plots.GREY, label="the matrix $H$ alone")
    right.set(xscale="log", yscale="log", xlabel="parameters $n$", ylabel="gigabytes")
    right.set_title("The matrix would\nnot fit")
    right.legend(frameon=False, loc="upper left", fontsize=10)
    last, proved = table["n"][-1], np.flatnonzero(judged)[-1]
    return Outcome(
        f"At n = {last} one product with the Hessian takes {table['product'][-1]:.2g} s on one "
        f"thread, in {table['memory'][-1]:.2g} GB; the matrix would have {matrix[-1]:.1e} GB. At "
        f"n = {table['n'][proved]} the verdict, a proved {table['kind'][proved]}, takes "
        f"{table['verdict'][proved]:.2g} s, {table['products'][proved]} products and "
        f"{table['verdict_memory'][proved]:.2g} GB.",
        save(figure, __file__, out),
        {"table": table},
    )


if __name__ == "__main__":
    command_line(main)

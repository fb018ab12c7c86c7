"""L1, L9. At the lectures' scale, ten million parameters, a saddle is proved to be one.

"You are operating in a 20 000 dimensional space", "tens of millions of parameters": no matrix of
that order can be formed, but products with it can. A network that reads digits is trained until it
rests at a minimum, then widened by units of zero weights up to n = 10 000 000, which leaves its
function and makes the point a saddle. Time and memory of one product with the Hessian, and of one
verdict from at most 30 of them, on one thread.

Not shown: a saddle of that size that training came to by itself; more than 20 rows, with which
both times grow in proportion; and another machine, on which all times differ.
"""

import resource
import time

import numpy as np
from common import Outcome, command_line, digits, pick, save, table_of
from critical import add_zero_units

import fastcurv as fc
from fastcurv import plots


def experiment(scale):
    """Seconds and memory of a product and a verdict, from small networks to large ones."""
    X, y = digits(20)

    def objective(width):
        model = fc.MLP([64, width, 10])
        return fc.Objective(model, X, y, loss="cross_entropy", l2=1e-3, n_threads=1)

    narrow = objective(8)
    theta = fc.minimize(narrow, narrow.model.init(seed=0), "newton-cg", seed=0).x
    rows = []
    for n in pick(scale, (10**4, 10**5), 10 ** np.arange(4, 8), 10 ** np.arange(4, 8)):
        ob = objective(int(round(n / 75)))
        wide = add_zero_units(narrow.model, theta, ob.model)
        hessian = ob.hessian(wide)
        v = np.random.default_rng(0).standard_normal(ob.n_params)
        product = min(seconds(lambda: hessian @ v) for _ in range(3))  # noqa: B023
        found = []
        verdict_time = seconds(lambda: found.append(fc.classify(ob, wide, max_products=30, seed=0)))  # noqa: B023
        rows.append(
            {
                "n": ob.n_params,
                "product": product,
                "verdict": verdict_time,
                "kind": found[0].kind,
                "certified": int(found[0].certified),
                "products": found[0].n_products,
                "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    return rows


def seconds(call):
    """Processor time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main(scale="normal", out="pictures"):
    table = table_of(__file__, experiment, scale)
    figure = plots.new_figure((7.6, 4.0))
    left, right = figure.subplots(1, 2)
    plots.curve(table["n"], table["product"], left, label="one product with $H$")
    plots.curve(table["n"], table["verdict"], left, label="one verdict: saddle, proved")
    left.set(xscale="log", yscale="log", xlabel="parameters $n$")
    left.set_ylabel("seconds on one thread")
    left.set_title("Time grows as $n$ does")
    left.legend(frameon=False)
    plots.curve(table["n"], table["megabytes"] / 1024, right, label="all memory used")
    matrix = 8 * table["n"].astype(float) ** 2 / 2**30
    right.plot(table["n"], matrix, "--", color=plots.GREY, label="the matrix $H$ alone")
    right.set(xscale="log", yscale="log", xlabel="parameters $n$", ylabel="gigabytes")
    right.set_title("The matrix would not fit")
    right.legend(frameon=False)
    last = {name: column[-1] for name, column in table.items()}
    certain = "proved" if last["certified"] else "not proved"
    return Outcome(
        f"At n = {last['n']} one product with the Hessian takes {last['product']:.2g} s on one "
        f"thread, the verdict ({last['kind']}, {certain}) {last['verdict']:.2g} s and "
        f"{last['products']} products, in {last['megabytes'] / 1024:.2g} GB; the matrix would "
        f"have {matrix[-1]:.1e} GB.",
        save(figure, __file__, out),
        {"table": table},
    )


if __name__ == "__main__":
    command_line(main)

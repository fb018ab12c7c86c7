"""One Newton step predicts how the prediction of a row changes if the network is trained without
it; the influence function predicts a fraction of the change.

A small network is fitted to the wine data at a minimum with weight decay. For each row and class
the change of the logit of the row is computed in three ways: exactly, by the minimum that the
network without the row moves to; by one Newton step from the fit with the row's own curvature
removed, for all rows from one factor of the Hessian; and by the influence function, which keeps
that curvature. Newton's step lies on the diagonal, the influence function far below it.

Not shown: refits from random starts, which may end in other minima and then differ by more; and
data whose refits move far: on iris the step predicts 64% of the change and the influence function
58%.
"""

import numpy as np
from common import Outcome, command_line, save

import fastcurv as fc
from fastcurv import plots
from fastcurv.common.optional import optional_import


def main(scale="normal", out="pictures"):
    with optional_import("the data", "demo"):
        from sklearn.datasets import load_wine

    X, y = load_wine(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    ob = fc.Objective(fc.MLP([13, 8, 3]), X, y, loss="cross_entropy", l2=1e-3)
    run = fc.minimize(ob, ob.model.init(rng=0), rng=0)
    z, slopes, _ = ob.outputs(run.x)
    exact = fc.leave_one_out(ob, run.x, exact=True)
    one = fc.leave_one_out(ob, run.x)
    factor, J = ob.hessian(run.x).factor(), ob.jacobian(run.x).to_dense().reshape(*z.shape, -1)
    linear = [J_i @ factor.solve(J_i.T @ r_i) / len(y) for J_i, r_i in zip(J, slopes)]
    kept = exact.in_same_basin
    true = (exact.predictions - z).ravel()
    ax = plots.new_axes()
    shares, names = {}, {"one": "one Newton step", "influence": "influence function"}
    for name, found, colour in (
        ("influence", linear, plots.ORANGE),
        ("one", one.predictions - z, plots.BLUE),
    ):
        shares[name] = float(np.polyfit(true, np.ravel(found), 1)[0])
        ax.plot(true, np.ravel(found), "o", ms=3, color=colour, label=names[name])
    ends = [float(true.min()), float(true.max())]
    ax.plot(ends, ends, "-", color="0.6", lw=1, label="exact")
    ax.set_xlabel("change of a logit by training without the row")
    ax.set_ylabel("the same, estimated")
    ax.set_title("One Newton step predicts the result of retraining")
    ax.legend(frameon=False)
    return Outcome(
        f"One Newton step explains {shares['one']:.0%} of the change of a row's own logits by "
        f"retraining without the row, the influence function {shares['influence']:.0%}; of "
        f"{int(kept.sum())} of {len(y)} rows no barrier is measured on the way to the minimum.",
        save(ax, __file__, out),
        {"shares": shares, "kept": float(kept.mean()), "score": one.score},
    )


if __name__ == "__main__":
    command_line(main)

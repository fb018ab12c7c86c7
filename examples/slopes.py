"""The slope of a fitted network, the change of its prediction with an input, differs from row to
row, even in its sign.

A network fitted to the diabetes data is differentiated in its ten inputs, exactly and for every
patient at once. Each bar spans the slopes of 90% of the patients, the dot is their median, and the
cross is the slope of a linear model. A linear model has one slope for an input; the network's slope
differs from patient to patient, and for most inputs even in its sign.

Not shown: how sure a slope is. The spread over patients is a property of the fitted function, not
an interval of confidence. With a penalty a hundred times as large, no slope changes its sign.
"""

import warnings

import numpy as np
from common import Outcome, command_line, pick, save

import fastcurv as fc
from fastcurv import plots
from fastcurv.common.optional import optional_import


def main(scale="normal", out="pictures"):
    with optional_import("the data", "demo"):
        from sklearn.datasets import load_diabetes

    data = load_diabetes()
    X, y = data.data / data.data.std(axis=0), data.target
    est = fc.MLPRegressor((10,), "tanh", alpha=3.0, random_state=0, verdict=False)
    est.set_params(max_iter=pick(scale, 100, 1000, 5000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fit that ended at max_iter
        est.fit(X, y)
    slopes = est.input_jacobian(X)[:, 0]
    linear = np.linalg.lstsq(np.c_[X, np.ones(len(X))], y, rcond=None)[0][:-1]
    low, middle, high = np.percentile(slopes, [5, 50, 95], axis=0)
    order = np.argsort(middle)
    ax, at = plots.new_axes(), np.arange(len(order))
    ax.hlines(at, low[order], high[order], color=plots.BLUE, lw=6, alpha=0.4)
    ax.plot(middle[order], at, "o", color=plots.BLUE, label="network, median and 90% of patients")
    ax.plot(linear[order], at, "x", color=plots.ORANGE, label="linear model")
    ax.axvline(0, color="0.6", lw=1)
    ax.set_yticks(at, [data.feature_names[i] for i in order])
    ax.set_xlabel("slope: change of the target for one standard deviation of the input")
    ax.set_title("A network has a different slope for each patient")
    ax.legend(frameon=False, loc="lower right")
    agreement = float(np.corrcoef(slopes.mean(axis=0), linear)[0, 1])
    both = int(((low < 0) & (high > 0)).sum())
    return Outcome(
        f"For {both} of 10 inputs the slope of the network is positive for some patients and "
        f"negative for others; its means agree with the linear model (correlation "
        f"{agreement:.2f}).",
        save(ax, __file__, out),
        {"both": both, "agreement": agreement, "slopes": slopes, "linear": linear},
    )


if __name__ == "__main__":
    command_line(main)

"""L8. Critical points of every index can be found on purpose, and proved: nearly every search ends
at one.

The lectures' picture of index against loss needs critical points, and most searches for them fail.
Minimising the norm of the gradient ends where that norm is stationary and not 0, and plain Newton
steps go wherever the model leads. Here four methods have the same number of tries on the same
networks, and half of the tries search for an index of 1 to 3. Three methods share their starts:
Newton-MR on the norm of the gradient, plain Newton, and a walk that goes up along as many
eigenvectors as the index says and down along all others. The fourth is `sample_critical_points`,
which makes such walks from up to four starts. Left: the tries that ended at a proved critical
point, and at one of the requested index. Right: the distinct points by index and loss, with a line
through the median losses of each network.

Half right: that all one finds are saddles of a high index. The index that is found is the requested
one. In general a higher index goes with a higher loss: the rank correlation is positive on every
network.

Not shown: points at which nothing passes through the network, which only the sentence counts;
details of tries that ended at no proved critical point; an index above 3; networks with relu units
or without weight decay, where none of 12 tries ended at a proved point; and how many critical
points exist, because no search draws from all of them evenly.
"""

import time

import numpy as np
from common import Outcome, binomial_interval, command_line, digits, pick, save, select, table_of

import fastcurv as fc
from fastcurv import plots
from fastcurv.applications.diagnosis.sample import (
    CriticalPointSample,
    SampledPoint,
    trivial_point_reason,
)
from fastcurv.common.optional import optional_import

REQUESTED_INDICES = (0, 1, 0, 2, 0, 3)
# data, hidden widths, l2: from 31 to 257 parameters
NETWORKS = (
    ("linnerud", (4,), 1e-3),
    ("linnerud", (16,), 3e-3),
    ("diabetes", (4,), 1e-2),
    ("diabetes", (6, 5), 3e-3),
    ("diabetes", (20,), 3e-3),
    ("breast_cancer", (2,), 1e-2),
    ("breast_cancer", (8,), 3e-3),
    ("digits", (6,), 3e-3),
)
METHOD_LABELS = {
    "gradient norm": "Newton-MR\non the norm\nof the gradient",
    "newton": "plain\nNewton",
    "follow": "eigenvectors\nfollowed",
    "sample": "the same,\nfrom up to\nfour starts",
}


def objective(name, widths, l2):
    """Return a tanh network on all rows of one of scikit-learn's data sets."""
    with optional_import("the data", "demo"):
        from sklearn import datasets

    if name == "digits":
        X, y = digits(n_features=12)
    else:
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        X = (X - X.mean(axis=0)) / X.std(axis=0)
    loss = "mse" if name in ("diabetes", "linnerud") else "cross_entropy"
    if loss == "mse":
        y = y.reshape(len(y), -1)
        y = (y - y.mean(axis=0)) / y.std(axis=0)
        outputs = y.shape[1]
    else:
        outputs = len(np.unique(y))
    return fc.Objective(fc.MLP([X.shape[1], *widths, outputs]), X, y, loss=loss, l2=l2)


def experiment(scale):
    """Return a row for every try of every method on every network: its end, the requested index,
    and its time.
    """
    rows = []
    for number, network in enumerate(pick(scale, NETWORKS[:1], NETWORKS, NETWORKS)):
        ob, n_tries = objective(*network), pick(scale, 6, 24, 120)
        for way in METHOD_LABELS:
            began = time.process_time()
            ends = search_all(ob, way, n_tries, seed=1000 + number)
            spent = time.process_time() - began
            points = [point for point in ends if point is not None and is_proved(point)]
            kept = CriticalPointSample(
                [point for point in points if not point.trivial], 0, 0, ob.model
            )
            distinct = {id(point) for point in kept.distinct}
            for at, point in enumerate(ends):
                row = {
                    "data": network[0],
                    "widths": "-".join(map(str, network[1])),
                    "n": ob.n_params,
                    "l2": network[2],
                    "way": way,
                    "asked": REQUESTED_INDICES[at % len(REQUESTED_INDICES)],
                    "proved": int(point is not None and is_proved(point)),
                    "trivial": int(point is not None and point.trivial is not None),
                    "index": -1 if point is None else point.verdict.n_negative,
                    "loss": np.nan if point is None else point.loss,
                    "distinct": int(id(point) in distinct),
                    "seconds": spent / n_tries,
                }
                rows.append(row)
    return rows


def is_proved(point):
    """Return True if the Newton-Kantorovich theorem proves a critical point of this index near the
    point.
    """
    h = point.verdict.kantorovich
    return point.verdict.certified and h is not None and h < 0.5


def search_all(ob, way, n_tries, seed):
    """Return the ends of all tries in order; None for a try that ends at no critical point."""
    if way == "sample":
        return points_by_try(
            fc.sample_critical_points(ob, n_tries, index=REQUESTED_INDICES, rng=seed), n_tries
        )
    return [
        search_once(ob, way, REQUESTED_INDICES[at % len(REQUESTED_INDICES)], [seed, at])
        for at in range(n_tries)
    ]


def points_by_try(sample, n_tries):
    """Return the points of a sample, which is sorted by loss, in the order of the tries, or None
    for the last tries of an index if some ended at no point.
    """
    left = {
        index: [point for point in sample if point.requested_index == index]
        for index in REQUESTED_INDICES
    }
    order = [REQUESTED_INDICES[at % len(REQUESTED_INDICES)] for at in range(n_tries)]
    return [left[index].pop(0) if left[index] else None for index in order]


def search_once(ob, way, index, seed):
    """Return the end of one search from a network trained by Adam for 30 to 3000 steps."""
    rng = np.random.default_rng(seed)
    theta = ob.model.init(rng=rng)
    steps = int(np.exp(rng.uniform(np.log(30), np.log(3000))))
    theta = fc.minimize(ob, theta, "adam", max_iter=steps, learning_rate=1e-2, verdict=False).x
    if way == "newton":
        theta = newton_iteration(ob, theta)
    else:
        options = {"index": index} if way == "follow" else {"method": "newton-mr"}
        theta = fc.find_critical_point(ob, theta, max_iter=200, verdict=False, **options).x
    if not np.isfinite(theta).all() or not np.isfinite(ob.gradient(theta)).all():
        return None
    verdict = fc.classify(ob, theta)
    if verdict.kind == "not_critical":
        return None
    loss = float(ob.value(theta))
    return SampledPoint(theta, loss, verdict, "walk", trivial_point_reason(ob, theta), None, index)


def newton_iteration(ob, theta, n_steps=200):
    """Return the end of Newton's method without damping or line search."""
    for _ in range(n_steps):
        step = np.linalg.lstsq(ob.hessian(theta).to_dense(), -ob.gradient(theta), rcond=None)[0]
        theta = theta + step
        if not np.linalg.norm(theta) < 1e6 or np.linalg.norm(step) < 1e-13 * np.linalg.norm(theta):
            break
    return theta


def main(scale="normal", out="pictures"):
    table = table_of(__file__, experiment, scale)
    counts = {way: count_tries(select(table, way=way)) for way in METHOD_LABELS}
    figure = plots.new_figure((7.6, 4.4))
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    draw_shares(left, counts)
    draw_points(right, select(table, way="sample", distinct=1))
    sample, before = counts["sample"], counts["gradient norm"]
    return Outcome(
        f"Of {sample['tries']} tries {sample['proved']} ended at a proved critical point "
        f"({sample['trivial']} of them trivial), and of {sample['wanted']} for an index "
        f"of 1 to 3, {sample['there']} at one of this index; Newton-MR on the gradient's norm: "
        f"{before['proved']} ({before['trivial']} trivial) and {before['there']}. Distinct points "
        f"a minute of one core: {sample['a minute']:.0f} and {before['a minute']:.0f}.",
        save(figure, __file__, out),
        {"table": table, "counts": counts},
    )


def count_tries(rows):
    """Return how many tries of one method ended where, and the distinct nontrivial points a minute
    of processor time.
    """
    high = rows["asked"] >= 1
    there = (rows["proved"] == 1) & (rows["index"] == rows["asked"])
    return {
        "tries": rows["n"].size,
        "proved": int(rows["proved"].sum()),
        "trivial": int((rows["proved"] * rows["trivial"]).sum()),
        "wanted": int(high.sum()),
        "there": int((there & high).sum()),
        "distinct": int(rows["distinct"].sum()),
        "a minute": float(60 * rows["distinct"].sum() / rows["seconds"].sum()),
    }


def draw_shares(ax, counts):
    """Draw bars of both shares by method, with 95% intervals."""
    places = np.arange(len(counts))
    for shift, color, part, of, words in (
        (-0.2, plots.BLUE, "proved", "tries", "ended at a proved critical point"),
        (0.2, plots.RED, "there", "wanted", "at the requested index, of 1 to 3"),
    ):
        shares = np.array([c[part] / c[of] for c in counts.values()])
        ends = np.array([binomial_interval(c[part], c[of]) for c in counts.values()]).T
        error = np.abs(ends - shares)
        ax.bar(places + shift, shares, 0.38, color=color, yerr=error, capsize=3, label=words)
    ax.set_xticks(places, [METHOD_LABELS[way] for way in counts], fontsize=8)
    ax.set(ylim=(0, 1.05), ylabel="share of the tries")
    ax.set_title("Following eigenvectors nearly\nalways finds a critical point")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8)


def draw_points(ax, points):
    """Draw the distinct points of each network by index and loss, relative to the lowest and
    highest loss of the network, and the median of each index.
    """
    networks = np.char.add(points["data"].astype(str), points["widths"].astype(str))
    for network in dict.fromkeys(networks):
        mine = {name: column[networks == network] for name, column in points.items()}
        height = (mine["loss"] - mine["loss"].min()) / np.ptp(mine["loss"])
        places = np.unique(mine["index"])
        medians = [np.median(height[mine["index"] == place]) for place in places]
        ax.scatter(mine["index"], height, s=9, alpha=0.35, lw=0, color=plots.GREY)
        ax.plot(places, medians, "o-", ms=4, lw=1.2, color=plots.BLUE)
    ax.set(xticks=range(4), xlabel="index: negative eigenvalues")
    ax.set_ylabel("loss, 0 and 1: the network's\nlowest and highest")
    ax.set_title("A higher index goes\nwith a higher loss")


if __name__ == "__main__":
    command_line(main)

"""L7, L17. While the loss is quadratic, the time that gradient descent stays near a saddle is
predicted by the most negative eigenvalue, the rate, the momentum and the distance of the start.

Along the eigenvector of the lowest eigenvalue, -m, a step of gradient descent with rate a
multiplies the distance by 1 + a m. With momentum b the distance grows by the larger root of z^2 -
(1 + b + a m) z + b. So the number of steps until the loss has fallen by one ten-thousandth is known
before the first step. The saddles are those of a network that reads digits, of two kinds: minima of
narrower networks with zero units added, and saddles of index 1 to 3 found on purpose. The starts
lie in random directions from them, and every step uses all samples.

Half right: that momentum is what gets past saddles. It multiplies the growth by 1 / (1 - b) at
most. The time still grows with the logarithm of the inverse distance
between start and saddle. Adam divides by the size of the gradient, and needs about as many steps
from any distance.

The prediction holds while the loss is quadratic. Until the loss has fallen by one hundredth, it is
right for the saddles made from narrower networks; from the others such a fall takes up to 50 times
the predicted steps, because higher derivatives turn the path of descent.

Not shown: mini-batches, whose noise may push theta off the saddle; and a prediction of Adam's time,
which is only measured.
"""

import numpy as np
from common import Outcome, columns, command_line, digits, pick, save, select

import fastcurv as fc
from fastcurv import plots

ADAM = "Adam, rate 0.001"
SETTINGS = {
    "gradient descent, rate 0.2": ("sgd", {"learning_rate": 0.2}),
    "gradient descent, rate 0.5": ("sgd", {"learning_rate": 0.5}),
    "momentum 0.5, rate 0.2": ("momentum", {"learning_rate": 0.2, "momentum": 0.5}),
    "momentum 0.9, rate 0.1": ("momentum", {"learning_rate": 0.1, "momentum": 0.9}),
    ADAM: ("adam", {}),
}
MIN_DECREASE = 1e-4


def main(scale="normal", out="pictures"):
    X, y = digits(200, n_features=8)
    ob = fc.Objective(fc.MLP([8, 6, 10]), X, y, loss="cross_entropy", l2=1e-3)
    count = pick(scale, 3, 6, 24)
    samples = {
        "narrower": fc.sample_critical_points(ob, count, sources="narrower", rng=0),
        "index": fc.sample_critical_points(ob, count, index=(1, 2, 3), rng=0),
    }
    saddles = [
        (source, point)
        for source, sample in samples.items()
        for point in lowest_saddles(sample, pick(scale, 1, 3, 24))
    ]
    rows = []
    for place, (source, point) in enumerate(saddles):
        eigen = np.linalg.eigh(ob.hessian(point.theta).to_dense())
        for size in pick(scale, (1e-3, 1e-6), (1e-3, 1e-5, 1e-7), 10.0 ** -np.arange(3, 9)):
            for seed in range(pick(scale, 1, 2, 20)):
                u = np.random.default_rng(seed).standard_normal(ob.n_params)
                u *= size / np.linalg.norm(u)
                for name, (method, options) in SETTINGS.items():
                    row = {"saddle": place, "source": source, "size": size, "method": name}
                    row["predicted"] = predicted_steps(eigen, point.loss, u, **options)
                    row["seen"] = steps_to_escape(ob, point, u, method, options)
                    rows.append(row)
    table = columns(rows)
    ratio = table["seen"] / table["predicted"]
    ratio = {name: ratio[table["method"] == name] for name in SETTINGS if name != ADAM}
    adam = table["seen"][table["method"] == ADAM]
    figure = draw_picture(table, [point.verdict.lambda_min for _, point in saddles])
    together = np.concatenate(list(ratio.values()))
    return Outcome(
        f"From {len(saddles)} saddles, {together.size} runs took {together.min():.2f} to "
        f"{together.max():.2f} times the predicted steps, "
        f"{np.mean(abs(together - 1) <= 0.1):.1%} of them within a tenth; Adam took "
        f"{adam.min():.0f} to {adam.max():.0f} steps, from near and far.",
        save(figure, __file__, out),
        {"ratio": ratio, "adam": adam, "saddles": len(saddles), "table": table},
    )


def lowest_saddles(sample, count):
    """Return the saddles of the lowest eigenvalues, which take the fewest steps to leave."""
    saddles = [point for point in sample.nontrivial if point.kind == "saddle"]
    return sorted(saddles, key=lambda point: point.verdict.lambda_min)[:count]


def steps_to_escape(ob, point, u, method, options):
    """Return the number of steps until the loss has fallen by `MIN_DECREASE`, from a start next to
    the saddle.
    """
    return fc.minimize(
        ob,
        point.theta + u,
        method,
        fun_target=(1 - MIN_DECREASE) * point.loss,
        max_iter=100_000,
        gradient_tol=0.0,
        verdict=False,
        **options,
    ).nit


def predicted_steps(eigen, loss, u, learning_rate=None, momentum=0.0):
    """Return the number of steps until the quadratic model along the lowest eigenvectors has fallen
    by `MIN_DECREASE`, or NaN for Adam.
    """
    if learning_rate is None:
        return np.nan
    values, vectors = eigen
    lowest = values < values[0] * (1 - 1e-6)  # missing units bring equal eigenvalues
    m, distance = -values[0], np.linalg.norm(vectors[:, lowest].T @ u)
    reach = np.sqrt(2 * MIN_DECREASE * loss / m)
    half = (1 + momentum + learning_rate * m) / 2
    root = np.sqrt(half**2 - momentum)
    growth, other = half + root, half - root
    share = (1 + learning_rate * m - other) / (growth - other)  # of the start, in the larger root
    return np.log(reach / (share * distance)) / np.log(growth)


def draw_picture(table, lowest):
    """Draw measured against predicted steps, and steps at one saddle against the distance of the
    start.
    """
    figure = plots.new_figure((7.6, 5.0))
    left, right = figure.subplots(1, 2)
    middle = int(np.argsort(lowest)[len(lowest) // 2])
    for name, color in zip(SETTINGS, plots.CYCLE):
        mine = select(table, method=name)
        for source, marker in (("narrower", "o"), ("index", "^")):
            ends = select(mine, source=source)
            if name != ADAM:
                left.plot(ends["predicted"], ends["seen"], marker, ms=4, color=color, alpha=0.7)
        here = select(mine, saddle=middle)
        right.plot(here["size"], here["seen"], "o", ms=5, color=color, mec="white", label=name)
        sizes = np.unique(here["size"])
        means = [np.mean(select(here, size=size)["predicted"]) for size in sizes]
        right.plot(sizes, means, color=color, lw=1.2)
    ends = np.array([np.nanmin(table["predicted"]), np.nanmax(table["predicted"])])
    left.plot(ends, ends, color="black", lw=1)
    left.fill_between(ends, 0.9 * ends, 1.1 * ends, color=plots.GREY, alpha=0.3, lw=0)
    left.set(xscale="log", yscale="log", ylabel="measured steps")
    left.set_xlabel("predicted steps until the loss\nhas fallen by 1/10 000")
    left.set_title("While the loss is quadratic,\nsteps are as predicted")
    right.set(xscale="log", xlabel="distance of the start from the saddle")
    right.set_ylabel("steps until the loss has fallen by 1/10 000")
    right.set_title("The nearer the start, the\nlonger, except for Adam")
    right.invert_xaxis()
    right.set_xticks([1e-3, 1e-5, 1e-7])
    right.minorticks_off()
    for words, marker in (("a zero unit added", "o"), ("index 1 to 3", "^")):
        left.plot([], [], marker, ms=5, color=plots.GREY, label=words)
    left.legend(frameon=False, loc="upper left")
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=3, fontsize=9)
    return figure


if __name__ == "__main__":
    command_line(main)

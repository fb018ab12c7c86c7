"""L8. The minimum ratio, positive eigenvalues over all: at the lowest losses it stays below 1
because of zeros, not of negative eigenvalues.

The lecture's picture shows hundreds of networks trained until the gradient vanishes. Even at the
lowest losses only 0.5 to 0.6 of the eigenvalues are positive, so a true minimum would hardly ever
be found. Here networks with fewer and with more parameters than residuals are trained, with and
without l2; no point is constructed. Left: the signs of what `eigvalsh` computes. Right, at the same
points: the three counts that are proved, positive, negative, and zero within the error. Below left:
the ratio against the size of the network. Below right: the losses of the training samples and of
all other samples against the ratio, for networks trained anew on the diabetes data, or on a table
of your own by `--data mine.csv`.

Wrong: that a ratio of 0.5 to 0.6 means no minimum. Networks with a loss of 1e-30 are at proved
global minima without a single negative eigenvalue. As many eigenvalues are positive as there are
residuals, and the others are zero. Rounding gives half of these a positive sign, so the ratio of
computed signs is 1/2 and a little more, and nearer to 1/2 the wider the network. With l2 every
converged network has the ratio 1. Nor does a higher ratio go with a lower training loss: without l2
the networks of loss 0 have the lowest ratios, and the losses of other samples are larger there.

Not shown: networks trained by SGD down to its noise, where the gradient does not vanish; and
networks that reached no critical point, which the sentence counts and the right picture leaves out.
"""

import numpy as np
from common import Outcome, command_line, pick, save, table_of

import fastcurv as fc
from fastcurv import plots
from fastcurv.common.optional import optional_import

WIDTHS = (1, 2, 3, 4, 5, 6, 10, 15, 20, 40, 60)
DATA_SETS = ("waves", "diabetes")
SIGN_STYLES = {
    "positive": ("o", plots.BLUE), "negative": ("v", plots.RED), "zero": ("s", plots.GREY),
}  # fmt: skip


def load_data(name, n_rows=40):
    """Return four features and one output of 40 rows, scaled: random, or of patients."""
    if name == "waves":
        rng = np.random.default_rng(0)
        X = rng.standard_normal((n_rows, 4))
        y = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.3 * rng.standard_normal(n_rows)
    else:
        with optional_import("the data", "demo"):
            from sklearn.datasets import load_diabetes

        X, y = load_diabetes(return_X_y=True)
        X, y = X[:n_rows, [2, 3, 7, 8]], y[:n_rows]
        X = (X - X.mean(axis=0)) / X.std(axis=0)
    return X, ((y - y.mean()) / y.std())[:, None]


def experiment(scale):
    """Train until convergence from every start, and return the counts: proved, and by signs of
    computed eigenvalues.
    """
    rows = []
    for name in DATA_SETS:
        X, Y = load_data(name)
        for l2 in (0.0, 1e-3):
            for width in pick(scale, (4, 10), WIDTHS, WIDTHS):
                if l2 and width > 20:  # every eigenvalue is positive from 1 to 20
                    continue
                ob = fc.Objective(fc.MLP([4, width, 1]), X, Y, loss="mse", l2=l2)
                usual = 10 if width <= 20 else 3
                for seed in range(pick(scale, 2, usual, 3 * usual)):
                    start = {"data": name, "l2": l2, "width": width, "seed": seed}
                    rows.append(start | facts_at_end(ob, seed))
    return rows


def end_of_run(ob, seed):
    """Return the last point of a run and the verdict on it."""
    steps = {"max_iter": 5000, "rng": 0}
    run = fc.minimize(ob, ob.model.init(rng=seed), "lm", gradient_tol=1e-12, **steps)
    if run.kind in ("not_critical", "undecided"):
        run = fc.minimize(ob, run.x, "trust-region", **steps)
    theta, verdict = run.x, run.report or fc.classify(ob, run.x)
    if verdict.nearest_verdict is not None:  # a few Newton steps lead to the point itself
        theta, verdict = verdict.nearest_point, verdict.nearest_verdict
    return theta, verdict


def facts_at_end(ob, seed):
    """Return the loss at the end of a run, the verdict, three counts and two naive ones."""
    theta, verdict = end_of_run(ob, seed)
    values = np.linalg.eigvalsh(ob.hessian(theta).to_dense())
    return {
        "n": ob.n_params,
        "loss": float(ob.value(theta)),
        "kind": verdict.kind,
        "certified": int(verdict.certified),
        "positive": verdict.n_positive,
        "negative": verdict.n_negative,
        "zero": verdict.n_zero,
        "positive_signs": int(np.sum(values > 0)),
        "negative_signs": int(np.sum(values < 0)),
    }


def losses_of_new_samples(X, Y, scale):
    """Return rows of the proved minimum ratio, the training loss and the loss of all other samples,
    for networks of several widths without and with l2, trained on 40 samples or half of all.
    """
    rows, n_fit = [], min(40, len(X) // 2)
    for l2 in (0.0, 1e-3):
        for width in pick(scale, (2, 10), (1, 2, 4, 6, 10, 15), WIDTHS):
            model = fc.MLP([X.shape[1], width, Y.shape[1]])
            ob = fc.Objective(model, X[:n_fit], Y[:n_fit], loss="mse", l2=l2)
            others = fc.Objective(model, X[n_fit:], Y[n_fit:], loss="mse")
            for seed in range(pick(scale, 2, 3, 10)):
                theta, verdict = end_of_run(ob, seed)
                if verdict.certified and verdict.n_positive is not None:
                    rows.append(
                        (verdict.n_positive / ob.n_params, ob.value(theta), others.value(theta))
                    )
    return np.array(rows)


def main(scale="normal", out="pictures", data=None):
    if data is None:
        X, Y = load_data("diabetes", n_rows=442)
    else:
        values = np.loadtxt(data, delimiter=",", skiprows=1)
        values = (values - values.mean(axis=0)) / values.std(axis=0)
        X, Y = values[:, :-1], values[:, -1:]
    fresh = losses_of_new_samples(X, Y, scale)
    table = table_of(__file__, experiment, scale)
    n = table["n"]
    nothing = np.full(n.size, np.nan)  # signs know no zero
    counts = {
        "by signs": np.stack([table["positive_signs"], table["negative_signs"], nothing], axis=1),
        "proved": np.stack([table["positive"], table["negative"], table["zero"]], axis=1),
    }
    shares = {name: three / n[:, None] for name, three in counts.items()}
    certain = table["certified"] == 1
    groups = {
        "wide": certain & (table["l2"] == 0) & (n > 40),
        "narrow": certain & (table["l2"] == 0) & (n < 40),
        "with l2": certain & (table["l2"] > 0),
    }
    facts = {
        "networks": n.size,
        "certified": int(certain.sum()),
        "kinds": set(table["kind"][certain]),
    }
    facts |= {
        name: {column: values[chosen] for column, values in table.items()}
        for name, chosen in groups.items()
    }
    ratios = {name: shares[name][groups["wide"], 0] for name in shares}
    wide = facts["wide"]
    return Outcome(
        f"Of {n.size} networks {certain.sum()} ended at a proved critical point, each a minimum. "
        f"The {wide['n'].size} with more parameters than residuals and no l2 are at global minima "
        f"(loss at most {wide['loss'].max():.0e}) with {wide['negative'].max()} negative "
        f"eigenvalues and a minimum ratio of {ratios['proved'].min():.2f} to "
        f"{ratios['proved'].max():.2f}; by the signs of eigvalsh it is "
        f"{ratios['by signs'].min():.2f} to {ratios['by signs'].max():.2f}, with "
        f"{wide['negative_signs'].min()} to {wide['negative_signs'].max()} negative "
        "signs that are rounding.",
        save(draw_picture(table, shares, fresh), __file__, out),
        facts | {"fresh": fresh, "table": table},
    )


def draw_picture(table, shares, fresh):
    """Draw the shares of the eigenvalues against the loss, by signs and as proved, and against n,
    and the losses of samples that were not fitted.
    """
    figure = plots.new_figure((7.6, 6.8))
    panels = figure.subplot_mosaic([["by signs", "proved"], ["width", "losses"]])
    certain = table["certified"] == 1
    loss = np.maximum(table["loss"], 1e-33)[certain]
    titles = {
        "by signs": "By signs of eigvalsh, the\nlowest losses are saddles",
        "proved": "Proved, at the same points:\nzeros, and none negative",
    }
    for name, title in titles.items():
        ax = panels[name]
        for (sign, (marker, color)), share in zip(SIGN_STYLES.items(), shares[name][certain].T):
            look = {"color": color, "mec": "white", "ms": 6, "alpha": 0.9, "label": sign}
            # Zeros are drawn behind the markers of the other signs.
            ax.plot(share, loss, marker, zorder=1.9 if sign == "zero" else 2, **look)
        ax.set(yscale="log", xlim=(-0.05, 1.05), ylim=(1e-33, 10), ylabel="training loss")
        ax.set(title=title, xlabel="share of the eigenvalues")
    words = "the lecture's 0.5 to 0.6"
    panels["by signs"].axvspan(0.5, 0.6, color=plots.YELLOW, alpha=0.35, lw=0, label=words)
    figure.legend(
        *panels["by signs"].get_legend_handles_labels(),
        frameon=False,
        loc="outside upper center",
        ncols=4,
    )
    draw_against_width(panels["width"], table, shares)
    ax = panels["losses"]
    for k, (name, color) in enumerate((("training", plots.BLUE), ("other samples", plots.ORANGE))):
        losses = np.maximum(fresh[:, k + 1], 1e-33)
        ax.plot(fresh[:, 0], losses, "os"[k], color=color, ms=5, alpha=0.8, label=name)
    ax.set(yscale="log", xlim=(-0.05, 1.05), xlabel="minimum ratio, proved", ylabel="loss")
    ax.set_title("The lowest training losses have\nthe lowest ratios")
    ax.legend(frameon=False, loc="lower right")
    return figure


def draw_against_width(ax, table, shares):
    """Draw the ratio at loss 0 against n, by signs and as proved, with that given by counting."""
    zero = (table["loss"] < 1e-20) & (table["certified"] == 1)
    curve = np.geomspace(55, 400, 100)
    ax.axhspan(0.5, 0.6, color=plots.YELLOW, alpha=0.35, lw=0)
    ax.plot(curve, (1 + 40 / curve) / 2, color=plots.SKY, lw=1, label="40 and half of the rest")
    for name, fill in (("by signs", "none"), ("proved", plots.BLUE)):
        n, ratio = table["n"][zero], shares[name][zero, 0]
        ax.plot(n, ratio, "o", color=plots.BLUE, mfc=fill, ms=6, label=f"positive, {name}")
    ax.plot(curve, 40 / curve, color=plots.GREY, lw=1, label="40, the residuals")
    ax.set(xscale="log", ylim=(0, 1.05), xlim=(55, 400), xlabel="parameters $n$")
    ax.set_xticks([60, 100, 200, 400], labels=["60", "100", "200", "400"])
    ax.minorticks_off()
    ax.set_ylabel("minimum ratio")
    ax.set_title("At minima of loss 0, the ratio\nby signs tends to 1/2")
    ax.legend(frameon=False, loc="upper right", fontsize=9)


if __name__ == "__main__":
    command_line(main, data="table of numbers as CSV with names, the target last")

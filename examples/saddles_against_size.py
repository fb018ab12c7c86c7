"""L1. The larger a network, the fewer searches for a zero of its gradient end at a minimum; yet far
more do than by chance, and that descent always ended at one.

The lecture tosses coins: each of n directions curves up or down, so all curve up in 2^-n of the
cases, 2^-20000 in 20 000 dimensions. Here the zeros of the gradient of small networks, with data
from five teacher networks, are searched from many starts and classified. Left: of the searches that
ended at a critical point, the share that ended at a minimum, with 95% intervals, compared with the
coins, with random symmetric matrices, whose chance is computed exactly, and with descents from
random weights by the trust-region method. Right: the distinct points by loss and share of negative
eigenvalues.

Half right: that a minimum has a chance of 2^-n. If H were a symmetric matrix of independent random
entries, the chance would be smaller still, like 3^(-n^2/4) (Dean and Majumdar 2006). In networks it
falls too, but slowly: from all searches at n = 5 to one in a hundred at n = 33. Low points are no
random sample: lower ones tend to have fewer negative eigenvalues. Within one size above 5, the rank
correlation of the right picture's two axes is 0.65 to 0.77. Training uses no such searches:
every descent from random weights ended at a proved minimum.

Not shown: points at which nothing passes through the network, which are critical trivially; more
than 33 parameters; and details of searches that ended at no critical point, about half. At n = 33
most points were found once, so most of all critical points there were never reached, and the share
of minima among all points is not known.
"""

import numpy as np
from common import Outcome, binomial_interval, command_line, pick, save, select, table_of
from scipy.optimize import root
from scipy.special import gammaln

import fastcurv as fc
from fastcurv import plots
from fastcurv.optimize.find import trivial_point_reason

WIDTHS = (1, 2, 3, 4, 5, 6, 8)


def experiment(scale):
    """Return the distinct critical points of each network, found as roots of its gradient."""
    rows = []
    for teacher in range(pick(scale, 2, 5, 20)):
        X, y = teacher_outputs(teacher)
        for width in pick(scale, (1, 4), WIDTHS, WIDTHS):
            ob = fc.Objective(fc.MLP([2, width, 1]), X, y, loss="mse", l2=1e-3)
            n_tries = pick(scale, 30, 150, 600)
            points, trivial = search_critical_points(ob, n_tries, teacher)
            key = {"teacher": teacher, "n": ob.n_params, "tries": n_tries, "trivial": trivial}
            rows += [key | point for point in points.values()]
    return rows


def teacher_outputs(teacher):
    """Return the outputs of a teacher of ten units for 100 samples."""
    X = np.random.default_rng(teacher).standard_normal((100, 2))
    model = fc.MLP([2, 10, 1])
    y = model.predict(3 * model.init(rng=teacher), X)
    return X, (y - y.mean(axis=0)) / y.std(axis=0)


def search_critical_points(ob, n_tries, seed):
    """Return critical points by loss and index, which are equal for copies under a symmetry, and
    the number of tries that ended at a trivial one.
    """
    points, trivial = {}, 0
    for number in range(n_tries):
        theta = find_root(ob, random_start(ob, np.random.default_rng([seed, number])))
        verdict = fc.classify(ob, theta)
        if not verdict.certified:
            continue
        if trivial_point_reason(ob, theta):
            trivial += 1
            continue
        loss = float(ob.value(theta))
        fresh = {"loss": loss, "negative": verdict.n_negative, "kind": verdict.kind, "found": 0}
        point = points.setdefault((f"{loss:.6g}", verdict.n_negative), fresh)
        point["found"] += 1
    return points, trivial


def random_start(ob, rng):
    """Return random weights, in half of the cases after some training."""
    theta = rng.uniform(0.5, 3) * ob.model.init(rng=rng)
    if rng.random() < 0.5:
        return theta
    steps = int(10 ** rng.uniform(1, 3))
    options = {"max_iter": steps, "learning_rate": 0.03, "verdict": False}
    return fc.minimize(ob, theta, "adam", **options).x


def find_root(ob, theta):
    """Return a root of the gradient by the method of Levenberg and Marquardt, or the end of the
    method.
    """
    return root(
        ob.gradient,
        theta,
        jac=lambda t: ob.hessian(t).to_dense(),
        method="lm",
        options={"maxiter": 300, "xtol": 1e-14, "ftol": 1e-14},
    ).x


def main(scale="normal", out="pictures"):
    table = table_of(__file__, experiment, scale)
    pools = {int(n): select(table, n=n) for n in np.unique(table["n"])}
    minima = {
        n: (int(p["found"] @ (p["kind"] == "minimum")), int(p["found"].sum()))
        for n, p in pools.items()
    }
    widths = pick(scale, (1, 4), WIDTHS, WIDTHS)
    down = {4 * width + 1: count_descents(width, pick(scale, 2, 5, 20)) for width in widths}
    figure = plots.new_figure((7.6, 4.6))
    left, right = figure.subplots(1, 2)
    draw_chances(left, minima, down)
    lowest = {}
    networks = list(zip(table["teacher"], table["n"]))
    for network, loss in zip(networks, table["loss"]):
        lowest[network] = min(loss, lowest.get(network, np.inf))
    height = table["loss"] / [lowest[network] for network in networks]
    index = table["negative"] / table["n"]
    for kind, (marker, color) in plots.MARKERS.items():
        mine = table["kind"] == kind
        if mine.any():
            label = f"{kind.replace('_', ' ')} ({mine.sum()})"
            look = {"color": color, "mec": "white", "ms": 6, "alpha": 0.9, "label": label}
            right.plot(index[mine], height[mine], marker, **look)
    right.set(xlabel="negative eigenvalues / all", yscale="log")
    right.set_ylabel("loss over the network's lowest")
    right.set_yticks([1, 2, 5, 10, 20], labels=["1", "2", "5", "10", "20"])
    right.minorticks_off()
    right.set_title("Lower points tend to have\nfewer negative eigenvalues")
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    small, large = min(pools), max(pools)
    words = {n: share_in_words(n, *minima[n]) for n in (small, large)}
    searches = [count_searches(pool) for pool in pools.values()]
    ended, descents_made = np.sum(list(down.values()), axis=0)
    return Outcome(
        f"{words[small]} and {words[large]} ended at a minimum, as did {ended} of {descents_made} "
        f"descents; coins say {0.5**large:.0e} and "
        f"random symmetric matrices of order 20 {chance_random_matrix(20):.0e}. Of "
        f"{sum(tried for tried, _ in searches)} searches {sum(ended for _, ended in searches)} "
        "ended at a proved critical point, trivial ones included.",
        save(figure, __file__, out),
        {"table": table, "minima": minima, "descents": down, "chance": chance_random_matrix},
    )


def share_in_words(n, k, of):
    low, high = binomial_interval(k, of)
    return f"{k} of {of} searches at n = {n} (95%: {low:.0%} to {high:.0%})"


def count_descents(width, n_teachers, n_starts=2):
    """Return how many descents from random weights end at a proved minimum, and the number of
    descents.
    """
    ended = []
    for teacher in range(n_teachers):
        X, y = teacher_outputs(teacher)
        ob = fc.Objective(fc.MLP([2, width, 1]), X, y, loss="mse", l2=1e-3)
        for seed in range(n_starts):
            run = fc.minimize(ob, ob.model.init(rng=seed), "trust-region", rng=0)
            ended.append(run.kind == "minimum" and run.report.certified)
    return sum(ended), len(ended)


def count_searches(pool):
    """Return the number of searches at one size, and how many ended at a proved critical point."""
    first = [select(pool, teacher=teacher) for teacher in np.unique(pool["teacher"])]
    ended = pool["found"].sum() + sum(part["trivial"][0] for part in first)
    return int(sum(part["tries"][0] for part in first)), int(ended)


def draw_chances(ax, minima, down):
    """Draw against n, on a log scale, the share of searches, of descents, of coins and of random
    matrices that give a minimum.
    """
    n = np.arange(1, 41)
    for counts, look in (
        (down, {"fmt": "s", "color": plots.GREEN, "label": "descents from random weights"}),
        (minima, {"fmt": "o", "color": plots.BLUE, "label": "searches for a zero gradient"}),
    ):
        shares = np.array([k / of for k, of in counts.values()])
        ends = np.array([binomial_interval(k, of) for k, of in counts.values()]).T
        ax.errorbar(list(counts), shares, np.abs(ends - shares), capsize=3, **look)
    ax.plot(n, 0.5**n, color=plots.GREY, label="coins, $2^{-n}$")
    chances = [chance_random_matrix(size) for size in n[:9]]
    ax.plot(n[:9], chances, color=plots.RED, label="random symmetric matrix")
    ax.set(yscale="log", ylim=(1e-12, 3), xlim=(0, 36), xlabel="parameters $n$")
    ax.set_ylabel("share, or chance, of a minimum")
    ax.set_title("Fewer searches end at a minimum\nas $n$ grows; every descent does")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1)


def chance_random_matrix(n, reach=16.0, nodes=300):
    """Return the probability that a random symmetric matrix of normal entries, of order n up to 20,
    has positive eigenvalues only, to ten digits.

    It is a ratio of two integrals of ``|prod (x_i - x_j)| exp(-sum x_i^2 / 2)``: over positive x,
    which is the Pfaffian of double integrals of polynomials orthonormal there (de Bruijn 1955),
    times their leading coefficients; and over all x, which is Mehta's.
    """
    t, w = np.polynomial.legendre.leggauss(nodes)
    x, w = (t + 1) * reach / 2, w * reach / 2
    weight = np.exp(-x * x / 2)
    polynomials, scales = [], []
    for _ in range(n):
        p = x * polynomials[-1] if polynomials else np.ones(nodes)
        for _ in range(2):
            for q in polynomials:
                p = p - np.sum(w * weight * p * q) * q
        scales.append(np.sqrt(np.sum(w * weight * p * p)))
        polynomials.append(p / scales[-1])
    f = np.array(polynomials) * weight
    # Legendre coefficients, for the integrals from 0 to each node
    legendre = np.polynomial.legendre.legvander(t, nodes - 1)
    coefficients = (legendre * (w * 2 / reach)[:, None]).T @ f.T * (np.arange(nodes) + 0.5)[:, None]
    below = np.polynomial.legendre.legint(coefficients, lbnd=-1, axis=0)
    below = np.polynomial.legendre.legval(t, below).reshape(n, -1) * reach / 2
    total = f @ w
    A = (2 * below - total[:, None]) @ (w * f).T
    if n % 2:
        A = np.block([[A, total[:, None]], [-total[None, :], np.zeros((1, 1))]])
    half_line = np.linalg.slogdet(A)[1] / 2 + np.sum(np.cumsum(np.log(scales)))
    order = np.arange(1, n + 1)
    line = n / 2 * np.log(2 * np.pi) + np.sum(gammaln(1 + order / 2) - gammaln(1.5))
    return float(np.exp(half_line + gammaln(n + 1) - line))


if __name__ == "__main__":
    command_line(main)

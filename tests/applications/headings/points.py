"""Headings of the examples on critical points, saddles and minima."""

import numpy as np

import fastcurv as fc

from .check import (
    change,
    example,
    exchange,
    exchange_labels,
    heading,
    rank_correlation,
    shuffled,
    vary,
)

MLP = fc.MLP

# --------------------------------------------------------------------------------------------------
# What a critical point is.


def recounted(facts, **changes):
    """Return the numbers of `where_training_stops` for its table with some columns replaced."""
    table = facts["table"] | changes
    return example("where_training_stops").count_facts(table) | {"table": table}


def batches_exchanged(facts):
    """Return the numbers of `where_training_stops` with the names of two trainings with
    mini-batches and of two with all samples exchanged.
    """
    names = facts["table"]["training"]
    for mini, full in (("Adam", "Adam, all samples"), ("SGD", "L-BFGS")):
        names = exchange_labels(names, mini, full)
    return recounted(facts, training=names)


def where_descent_ends(facts):
    """Return the numbers of `where_training_stops` for the points at which descent ends, in place
    of those at which training stops, with half of the minima turned into saddles.
    """
    kinds = facts["table"]["down_kind"].copy()
    kinds[::2] = "saddle"
    return recounted(facts, kind=kinds, down_kind=kinds)


@heading(
    penalties_exchanged=lambda facts: recounted(facts, l2=1e-3 - facts["table"]["l2"]),
    batches_exchanged=batches_exchanged,
    where_descent_ends=where_descent_ends,
    random_weights_before_and_after=lambda facts: recounted(
        facts, loss=facts["table"]["start_loss"]
    ),
)
def where_training_stops(facts):
    table = facts["table"]
    trained = table["training"] != "random weights"
    share = (table["gain"] / table["loss"])[trained]
    plain = share[table["l2"][trained] == 0]
    return {
        "how many ends are critical depends on the tolerance": [
            int(np.sum(share <= tolerance)) for tolerance in (1e-9, 1e-8, 1e-7)
        ]
        == [7, 26, 44],
        "without weight decay 129 of 135 would gain 0.4 to 1.5 of the loss": (
            int(np.sum((plain > 0.4) & (plain < 1.5))),
            plain.size,
        )
        == (129, 135),
        "25 of 270 trainings ended at a minimum and none at a saddle": (
            facts["trainings"],
            facts["minima"],
            facts["saddles"],
        )
        == (270, 25, 0),
        "only with weight decay and all samples": facts["minima"]
        == facts["minima in full batches"],
        "with mini-batches Newton's step would gain more than 1%": facts["mini share"][0] > 0.01,
        "with all samples and weight decay far less": facts["full share"][1] < 1e-4,
        "with weight decay a minimum lies further on": facts["minima below"] == facts["penalised"],
        "without weight decay none does": facts["minima below without"] == 0,
        "there Newton's step gains about half of the loss in the median": 0.5
        < facts["plain share"]
        < 0.6,
        "and only the loss tells trained from random weights": facts["losses"][2] < 0.2
        and facts["random share"][0] < facts["plain share"],
    }


class GaussNewton(fc.Objective):
    """An objective whose second-order Taylor model has the Gauss-Newton matrix in place of the
    Hessian.
    """

    def taylor(self, theta):
        (value, gradient), G = self.value_and_gradient(theta), self.ggn(theta)
        return lambda d: value + gradient @ d + d @ (G @ d) / 2


@heading(
    gauss_newton=lambda d: vary("taylor_error", {"Objective": GaussNewton}),
    orders_exchanged=lambda d: {"with_hessian": d["without"], "without": d["with_hessian"]},
)
def taylor_error(d):
    return {
        "with the Hessian the error falls as the cube": np.allclose(
            d["with_hessian"], 3, atol=0.15
        ),
        "without it as the square": np.allclose(d["without"], 2, atol=0.15),
    }


SIGNS = {"minimum": (True, True), "saddle": (False, True), "maximum": (False, False)}


def gauss_newton_signs(d):
    """Return the numbers that the example `eigenvalues_tell` computes from the Gauss-Newton matrix,
    which has no negative eigenvalues, in place of the Hessian.
    """

    def dense(ob, theta):
        return ob.ggn(theta).to_dense() if hasattr(ob, "ggn") else ob.hessian(theta)

    return vary("eigenvalues_tell", dense_hessian=dense)


def tanh_autoencoder(d):
    """Return the numbers that the example `eigenvalues_tell` computes for an autoencoder with tanh
    units at the points of the linear one, which are not critical for tanh units.
    """
    return vary(
        "eigenvalues_tell",
        {"MLP": lambda sizes, activation, bias: MLP(sizes, activation="tanh", bias=bias)},
        plot_rotating_direction=lambda ax, H: (1.0, 1.0),
    )


@heading(gauss_newton_signs=gauss_newton_signs, tanh_autoencoder=tanh_autoencoder)
def eigenvalues_tell(d):
    return {
        "the signs of the eigenvalues tell the kind": all(
            found == kind and (low > 0, high > 0) == SIGNS[kind]
            for kind, (found, (low, high)) in d["signs"].items()
        ),
        "the numbers of negative eigenvalues are those of theory": np.array_equal(
            d["negative"], d["expected"]
        ),
        "only the point that keeps the leading eigenvectors is a minimum": np.array_equal(
            d["kinds"] == "minimum", d["expected"] == 0
        ),
    }


def in_the_valley(d):
    """Return the numbers of `toy_surface` with its minimum in place of its saddle, and its saddle
    in place of its minimum.
    """
    ob, theta = fc.testing.lecture_toy(), np.array([0.5, 2.0])
    H = ob.hessian(theta) @ np.eye(2)
    v = np.abs(np.linalg.eigh(H)[1][:, 0])
    saddle = fc.classify(ob, np.zeros(2))
    return {
        "hessian": H,
        "kind": fc.classify(ob, theta).kind,
        "direction": v,
        "before": ob.value(theta),
        "loss": ob.value(theta + 0.1 * v),
        "valley": saddle.kind,
        "valley_zero": saddle.n_zero,
    }


@heading(in_the_valley=in_the_valley)
def toy_surface(d):
    return {
        "the origin is a saddle with H = [[0, -2], [-2, 0]]": d["kind"] == "saddle"
        and d["certified"]
        and np.array_equal(d["hessian"], [[0, -2], [-2, 0]]),
        "the escape direction is (1, 1)": np.allclose(d["direction"], np.sqrt(0.5), atol=1e-12),
        "along it the loss falls": d["loss"] < d["before"],
        "the valleys are of minima": d["valley"] == "minimum" and d["valley_zero"] == 1,
    }


@heading(
    no_step=lambda d: {"fallen": 0 * d["fallen"], "escaped": 0 * d["escaped"]},
    a_quadratic_loss=lambda d: {"ratio": np.ones_like(d["ratio"])},
    signs_exchanged=lambda d: {"factors": exchange(d["factors"], "positive", "negative")},
)
def escape_step(d):
    right = {sign: np.mean(abs(np.log(found)) < 0.06) for sign, found in d["factors"].items()}
    return {
        "a step along a negative eigenvector lowers the loss": min(
            d["fallen"].min(), d["escaped"].min()
        )
        > 0,
        "at saddles the best step is not 1/|lambda|": np.ptp(np.log10(d["ratio"])) > 0.2,
        "in training the model's step is right for positive eigenvalues": right["positive"] > 0.8,
        "and not for negative ones": right["negative"] < 0.4,
    }


# --------------------------------------------------------------------------------------------------
# Saddles, or poor minima?


def coin_tosses(d):
    """Return the counts of searches that `saddles_against_size` would find at a minimum if the sign
    of each eigenvalue were a coin toss.
    """
    return {"minima": {n: (round(of * 0.5**n), of) for n, (_, of) in d["minima"].items()}}


@heading(
    coin_tosses=coin_tosses,
    sizes_in_reverse_order=lambda d: {
        "minima": dict(zip(d["minima"], [*d["minima"].values()][::-1]))
    },
    searches_in_place_of_descents=lambda d: {"descents": d["minima"]},
    losses_in_random_order=lambda d: change(d, "table", loss=shuffled(d["table"]["loss"])),
)
def saddles_against_size(d):
    common = example("common")
    shares = {n: k / of for n, (k, of) in d["minima"].items()}
    first, *later = (common.binomial_interval(*counts) for counts in d["minima"].values())
    table = d["table"]
    pools = [common.select(table, teacher=teacher, n=n) for teacher in range(5) for n in (13, 33)]
    return {
        "the larger a network, the fewer searches end at a minimum": all(
            interval[1] < first[0] for interval in later
        )
        and sorted(shares.values(), reverse=True) == [*shares.values()],
        "they are far more than by chance": min(shares[n] / 0.5**n for n in shares) > 10
        or min(shares[n] / 0.5**n for n in list(shares)[1:]) > 100,
        "descent ends at a minimum every time": all(k == of for k, of in d["descents"].values()),
        "lower points tend to have fewer negative eigenvalues": all(
            rank_correlation(mine["loss"], mine["negative"]) > 0.5 for mine in pools
        ),
    }


def by_gradient_norm(d):
    """Return the counts and the table of `finding_saddles` with `sample_critical_points` and
    searches that minimise the gradient norm exchanged.
    """
    way = exchange_labels(d["table"]["way"], "sample", "gradient norm")
    counts = exchange(d["counts"], "sample", "gradient norm")
    return {"counts": counts} | change(d, "table", way=way)


@heading(
    by_gradient_norm=by_gradient_norm,
    losses_in_random_order=lambda d: change(d, "table", loss=shuffled(d["table"]["loss"])),
)
def finding_saddles(d):
    common = example("common")
    sample, before = (d["counts"][way] for way in ("sample", "gradient norm"))
    low, high = (
        [common.binomial_interval(way[part], way[of])[end] for part, of in PARTS]
        for end, way in enumerate((sample, before))
    )
    table = common.select(d["table"], way="sample")
    tries = [common.select(table, n=n) for n in np.unique(table["n"])]
    points = [common.select(mine, distinct=1) for mine in tries]
    ranks = np.array([rank_correlation(mine["loss"], mine["index"]) for mine in points])
    return {
        "on each network nine searches of ten end at a proved critical point": all(
            mine["proved"].mean() >= 0.9 for mine in tries
        ),
        "most of those for an index end at it": sample["there"] >= 0.6 * sample["wanted"],
        "far more than by minimising the norm of the gradient": np.all(np.greater(low, high))
        and sample["distinct"] > 3 * before["distinct"],
        "a higher index goes with a higher loss": np.all(ranks > 0.3) and np.sum(ranks > 0.5) >= 6,
    }


PARTS = (("proved", "tries"), ("there", "wanted"))


def signs_of_rounding(d):
    """Return the table of wide networks of `minimum_ratio` with the signs of computed eigenvalues
    in place of the proved counts.
    """
    wide = d["wide"]
    return change(d, "wide", positive=wide["positive_signs"], negative=wide["negative_signs"])


@heading(
    signs_of_rounding=signs_of_rounding,
    exact_zeros=lambda d: change(d, "wide", positive_signs=d["wide"]["positive"]),
    wide_networks_in_place_of_others=lambda d: {"narrow": d["wide"], "with l2": d["wide"]},
)
def minimum_ratio(d):
    wide = d["wide"]
    half = (1 + 40 / wide["n"]) / 2  # rounding gives half of the zero eigenvalues a positive sign
    return {
        "the lowest losses are minima with zeros and no negative eigenvalues": d["kinds"]
        == {"minimum"}
        and wide["loss"].max() < 1e-20
        and not wide["negative"].any()
        and np.all(wide["positive"] == 40),
        "by signs the ratio is little above a half": np.all(
            abs(wide["positive_signs"] / wide["n"] - half) < 0.08
        ),
        "with few parameters or l2 every eigenvalue is positive": all(
            np.array_equal(d[name]["positive"], d[name]["n"]) for name in ("narrow", "with l2")
        ),
    }


@heading(
    no_unit_added=lambda d: {"opened": d["stuck"], "lowest": -d["lowest"]},
    no_escape=lambda d: {"escaped": d["before"], "after": d["before"]},
    sigmoid_in_place_of_tanh=lambda d: {"kinds": exchange(d["kinds"], "tanh", "sigmoid")},
    relu_in_place_of_softplus=lambda d: {"kinds": exchange(d["kinds"], "relu", "softplus")},
)
def wider_net(d):
    kinds = d["kinds"]
    return {
        "a minimum is a saddle of the wider network": set(d["stuck"]) == {"minimum"}
        and set(d["opened"]) == {"saddle"}
        and max(d["lowest"]) < -1e-5,
        "its escape direction leads to a lower minimum": np.all(d["escaped"] < d["before"])
        and np.all(d["after"] < np.minimum(d["escaped"], 0.97 * d["before"])),
        "this holds for tanh units, which are 0 at 0": set(kinds["tanh"]) == {"saddle"},
        "for sigmoid and softplus the point is mostly not critical": all(
            kinds[name].count("not_critical") > len(kinds[name]) / 2
            for name in ("sigmoid", "softplus")
        ),
        "for relu there is no verdict": set(kinds["relu"]) == {"undecided"},
    }


def planes_without_hidden_units(d):
    """Return the numbers of minima in the planes of `two_weights` for a network without hidden
    units, whose loss is convex.
    """
    common, module = example("common"), example("two_weights")
    X, y = common.two_spirals(50)
    ob = fc.Objective(fc.MLP([2, 1]), X, y.astype(float), loss="binary_cross_entropy", l2=1e-2)
    counts = [
        len(module.plane_minima(module.Plane(ob, seed), 15)) for seed in range(len(d["counts"]))
    ]
    return {"counts": np.array(counts)}


def descent_in_all_weights(d):
    """Return the entries `kinds`, `negative` and `before` of `two_weights` for the points at which
    descent in all weights ends, in place of the minima over two weights.
    """
    kinds = np.full(len(d["after"]), "minimum")
    return {"kinds": kinds, "negative": np.zeros(len(kinds)), "before": d["after"]}


@heading(
    planes_without_hidden_units=planes_without_hidden_units,
    descent_in_all_weights=descent_in_all_weights,
)
def two_weights(d):
    return {
        "over two weights the loss often has several minima": np.mean(d["counts"] > 1) > 0.2,
        "none of them is a minimum of the network": set(d["kinds"]) == {"not_critical"}
        and d["negative"].min() > 0,
        "along the other weights the loss falls further": np.all(d["after"] < 0.2 * d["before"]),
    }


def half_of_the_directions(d):
    """Return the eigenvalues of `hidden_way_out`, and the fraction of random directions with
    negative curvature, for a Hessian with eigenvalues 1 and -1 in equal numbers.
    """
    v = np.random.default_rng(0).standard_normal((1000, 60))
    eigenvalues = np.repeat([1.0, -1.0], 30)
    return {"falling": np.mean(np.square(v) @ eigenvalues < 0), "eigenvalues": eigenvalues}


@heading(
    half_of_the_eigenvalues_negative=half_of_the_directions,
    a_random_direction=lambda d: {"lowest": d["loss"]},
)
def hidden_way_out(d):
    return {
        "random directions hide that the point is a saddle": d["kind"] == "saddle"
        and d["falling"] < 0.05,
        "the loss falls along the lowest eigenvector": d["lowest"] < 0.99 * d["loss"],
        "many eigenvalues are small, and a few large ones set their mean": np.mean(
            abs(d["eigenvalues"]) < 0.01
        )
        > 0.25
        and d["eigenvalues"].mean() > 0.1,
    }


def widths_exchanged(d):
    """Return the counts of `poor_minima` with width 32 and the worst width of each data set
    exchanged.
    """
    shares = {}
    for name, by in d["shares"].items():
        worst = min(by["width"], key=lambda width: by["width"][width])
        shares[name] = by | {"width": exchange(by["width"], worst, 32)}
    return {"shares": shares}


@heading(
    widths_exchanged=widths_exchanged,
    widths_in_place_of_depths=lambda d: {
        "shares": {
            name: by | {"depth": dict(zip(by["depth"], (by["width"][w] for w in (4, 16, 32))))}
            for name, by in d["shares"].items()
        }
    },
)
def poor_minima(d):
    interval = example("common").binomial_interval
    widths = [by["width"] for by in d["shares"].values()]
    hard = [by["width"] for name, by in d["shares"].items() if name != "two moons"]
    deep = [by["depth"][4][0] for by in d["shares"].values()]
    return {
        "at width 32 poor minima are rarer": min(counts[32][0] for counts in widths) >= 15,
        "in small networks they are not": all(
            interval(*min(counts.values()))[1] < interval(*counts[32])[0] for counts in hard
        ),
        "depth alone follows no such rule": sum(k <= 10 for k in deep) >= 3,
    }


def whole_matrix(d):
    """Return the table of `ten_million` with the time and memory of a dense matrix of second
    derivatives in place of those of products.
    """
    n = d["table"]["n"].astype(float)
    changes = dict.fromkeys(("memory", "verdict_memory"), 8 * n**2 / 2**30)
    return change(d, "table", product=d["table"]["product"] * n, **changes)


@heading(
    whole_matrix=whole_matrix,
    the_minimum_before=lambda d: change(d, "table", kind=np.full(d["table"]["n"].size, "minimum")),
)
def ten_million(d):
    table, last = d["table"], d["table"]["n"].argmax()
    n = table["n"].astype(float)
    small = 1e-3 * 8 * n[last] ** 2 / 2**30
    return {
        "with ten million parameters a product is quick": n[last] > 0.99e7
        and table["product"][last] < 1
        and 0.7 < np.polyfit(np.log(n), np.log(table["product"]), 1)[0] < 1.4,
        "its memory is a small part of the matrix": max(
            table["memory"][last], table["verdict_memory"][last]
        )
        < small,
        "a saddle is proved": set(table["kind"]) == {"saddle"} and table["certified"].all(),
    }

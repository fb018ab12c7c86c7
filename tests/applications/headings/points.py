"""Headings of the examples on critical points, saddles and minima."""

import numpy as np

import fastcurv as fc

from .check import example, heading, rank_correlation, reverse, slow, vary

MLP = fc.MLP

# --------------------------------------------------------------------------------------------------
# What a critical point is.


@heading()
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
    """An objective with the Gauss-Newton matrix in place of the Hessian."""

    def hessian(self, theta):
        return self.ggn(theta)


@heading(gauss_newton=lambda d: vary("taylor_error", {"Objective": GaussNewton}))
def taylor_error(d):
    return {
        "with the Hessian the error falls as the cube": np.allclose(
            d["with_hessian"], 3, atol=0.15
        ),
        "without it as the square": np.allclose(d["without"], 2, atol=0.15),
    }


SIGNS = {"minimum": (True, True), "saddle": (False, True), "maximum": (False, False)}


def gauss_newton_signs(d):
    """Return the numbers of `eigenvalues_tell` from the Gauss-Newton matrix, which has no negative
    eigenvalues, in place of the Hessian.
    """

    def dense(ob, theta):
        return ob.ggn(theta).to_dense() if hasattr(ob, "ggn") else ob.hessian(theta)

    return vary("eigenvalues_tell", dense_hessian=dense)


def tanh_autoencoder(d):
    """Return the numbers of `eigenvalues_tell` for an autoencoder with tanh units at the points of
    the linear one, which are not critical for tanh units.
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


@heading(saddle_in_place_of_minimum=lambda d: {"valley": "saddle"})
def toy_surface(d):
    return {
        "the origin is a saddle with H = [[0, -2], [-2, 0]]": d["kind"] == "saddle"
        and d["certified"]
        and np.array_equal(d["hessian"], [[0, -2], [-2, 0]]),
        "the escape direction is (1, 1)": np.allclose(d["direction"], np.sqrt(0.5), atol=1e-12),
        "along it the loss falls": d["loss"] < d["before"],
        "the valleys are of minima": d["valley"] == "minimum" and d["valley_zero"] == 1,
    }


@heading(reversed=lambda d: {"factors": reverse(d["factors"])})
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


@heading()
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


@heading()
def minimum_ratio(d):
    wide, table = d["wide"], d["table"]
    proved = (table["certified"] == 1) & (table["l2"] == 0)
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
        "without l2 a higher ratio goes with a higher loss": rank_correlation(
            table["positive"][proved] / table["n"][proved], table["loss"][proved]
        )
        > 0.5,
        "with few parameters or l2 every eigenvalue is positive": all(
            np.array_equal(d[name]["positive"], d[name]["n"]) for name in ("narrow", "with l2")
        ),
    }


def without_slope(d):
    """Return the numbers of `wider_net` if the slope of the activation at 0 is taken as 1."""
    return vary("wider_net", ZERO_AT_ZERO=dict.fromkeys(("gelu", "silu"), 1.0))


@heading(reversed=lambda d: {"kinds": reverse(d["kinds"])}, without_slope=slow(without_slope))
def wider_net(d):
    kinds, drawn = d["kinds"], d["drawn"]
    return {
        "a minimum is a saddle of the wider network": set(d["stuck"]) == {"minimum"}
        and set(d["opened"]) == {"saddle"}
        and max(d["lowest"]) < -1e-5,
        "its escape direction leads to a lower minimum": np.all(d["escaped"] < d["before"])
        and np.all(d["after"] < np.minimum(d["escaped"], 0.97 * d["before"])),
        "the point is a saddle where the residuals' correlation with the inputs exceeds l2": all(
            kind == ("saddle" if size > 1 else "minimum")
            for kind, size in zip(drawn["kind"], drawn["size"])
        )
        and set(drawn["kind"]) == {"saddle", "minimum"},
        "its lowest eigenvalue is the difference": np.allclose(
            drawn["lowest"][drawn["size"] > 1], 1 - drawn["size"][drawn["size"] > 1], rtol=1e-3
        ),
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


@heading(planes_without_hidden_units=planes_without_hidden_units)
def two_weights(d):
    return {
        "over two weights the loss often has several minima": np.mean(d["counts"] > 1) > 0.15,
        "none of them is a minimum of the network": set(d["kinds"]) == {"not_critical"}
        and d["negative"].min() > 0,
        "along the other weights the loss falls further": np.all(d["after"] < 0.2 * d["before"]),
    }


@heading(a_random_direction=lambda d: {"lowest": d["loss"]})
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


@heading()
def poor_minima(d):
    interval = example("common").binomial_interval
    widths = [by["width"] for by in d["shares"].values()]
    hard = [by["width"] for name, by in d["shares"].items() if name != "two moons"]
    deep = [by["depth"][4][0] for by in d["shares"].values()]
    table, select = d["table"], example("common").select
    medians = [
        [np.median(select(table, data=name, depth=1, width=width)["loss"]) for width in (2, 8, 32)]
        for name in d["shares"]
    ]
    return {
        "the wider the network, the lower the losses": np.all(np.diff(medians, axis=1) < 0),
        "at width 32 poor minima are rarer": min(counts[32][0] for counts in widths) >= 15,
        "in small networks they are not": all(
            interval(*min(counts.values()))[1] < interval(*counts[32])[0] for counts in hard
        ),
        "depth alone follows no such rule": sum(k <= 10 for k in deep) >= 3,
    }


@heading(reversed=lambda d: {"table": d["table"] | {"product": d["table"]["product"][::-1]}})
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

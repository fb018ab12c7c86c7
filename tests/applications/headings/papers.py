"""Headings of the examples that reproduce papers."""

import numpy as np

import fastcurv as fc

from .check import example, heading, rank_correlation, reverse, shuffled, vary

MLP = fc.MLP

# --------------------------------------------------------------------------------------------------
# Papers.


def a_rate_too_small(d):
    """Return the measurements of `edge_of_stability` for a rate so small that the largest
    eigenvalue does not reach 2/rate.
    """
    module = example("edge_of_stability")
    return {"facts": {0.05: [module.measure(0.05, *module.reproduce(0.05, 0, time=100))]}}


@heading(a_rate_too_small=a_rate_too_small)
def edge_of_stability(d):
    facts = [fact for own in d["facts"].values() for fact in own]
    most = np.ceil(0.8 * len(facts))
    falls = [fact["rises_after"] > 0 and fact["fall"] < 0.95 for fact in facts]
    return {
        "the largest eigenvalue rises to 2/rate in most trainings": sum(
            fact["reached"] for fact in facts
        )
        >= most
        and d["first"].max() < 7,
        "and stays there": sum(abs(fact["mean"] - 1) < 0.06 for fact in facts) >= most,
        "the loss falls, though not in every step": sum(falls) >= most
        and not any(fact["rises_before"] for fact in facts),
    }


@heading(ends_of_two_trainings=lambda d: {"rises": d["barriers"] > 1})
def straight_line(d):
    return {
        "from the start of a training to its end the loss only falls": not d["rises"].any(),
        "between two ends it rises": d["barriers"].min() > 2,
        "training takes a longer path": d["lengths"].min() > 1.02,
    }


@heading(exchanged=lambda d: {"bent": d["straight"], "straight": d["bent"]})
def bent_path(d):
    return {
        "on the bent path the loss hardly rises": np.all(d["bent"] < 1.5 * d["ends"]),
        "on the straight line it does": np.all(d["straight"] > 10 * d["ends"]),
    }


@heading(reversed=lambda d: {"barriers": reverse(d["barriers"])})
def matched_units(d):
    trained, drawn, matched = (d["barriers"][n] for n in ("as trained", "at random", "matched"))
    shares = [np.median(share) for share in d["shares"].values()]
    return {
        "matching the units lowers the barrier": all(
            np.median(matched[width]) < 0.9 * np.median(trained[width]) for width in trained
        ),
        "the wider the networks, the more": rank_correlation([*trained], shares) < -0.9
        and 5 * shares[-1] < shares[0],
        "a random permutation does not": all(
            np.median(drawn[width]) > 0.5 * np.median(trained[width]) for width in trained
        ),
    }


@heading(
    shuffled=lambda d: {"runs": {k: (shuffled(a), b, c) for k, (a, b, c) in d["runs"].items()}}
)
def index_against_loss(d):
    runs = [(points, index) for points, index, _ in d["runs"].values()]
    return {
        "the higher the loss, the more negative eigenvalues": all(
            points.size >= 7 and rank_correlation(points, index) > 0.8 for points, index in runs
        ),
        "minima lie at the bottom": all(
            points[index == 0].max() < points[index == index.max()].min() for points, index in runs
        ),
    }


@heading(reversed=lambda d: {"losses": {name: reverse(x) for name, x in d["losses"].items()}})
def spread_by_width(d):
    spreads = [[np.std(x, ddof=1) for x in own.values()] for own in d["losses"].values()]
    return {
        "the wider the network, the less the loss depends on the start": all(
            rank_correlation(range(len(own)), own) < -0.85 and own[0] > 5 * own[-1]
            for own in spreads
        )
    }


def linear_units_at_the_start(d):
    """Return the numbers of `best_steps` for networks of linear units before any training."""
    reproduce = example("best_steps").reproduce
    linear = {"MLP": lambda sizes, activation: MLP(sizes, activation="identity")}
    return vary("best_steps", linear, reproduce=lambda seed, n_steps: reproduce(seed, 0))


def two_hidden_units(d):
    """Return the numbers of `best_steps` for networks of two hidden units instead of twelve."""
    return vary("best_steps", {"MLP": lambda sizes, activation: MLP([8, 2, 10])})


@heading(linear_units_at_the_start=linear_units_at_the_start, two_hidden_units=two_hidden_units)
def best_steps(d):
    up, down = (d["ratio"][name] for name in ("positive", "negative"))
    return {
        "where curvature is positive the best step is Newton's": np.mean(abs(up - 1) < 0.1) > 0.9,
        "where it is negative it is several times as long": down.min() > 2 and np.median(down) > 10,
        "there the loss falls more": all(b > 30 * a for a, b in d["gain"].values()),
    }


def thirty_steps(d):
    """Return the numbers of `gradient_flat` with thirty steps of each search instead of 3000."""
    minimize = fc.minimize

    def short(*args, max_iter, **options):
        return minimize(*args, max_iter=30, **options)

    return vary("gradient_flat", {"minimize": short})


def strong_decay(d):
    """Return the numbers of `gradient_flat` with weight decay thirty times as strong in the tanh
    network.
    """
    objective = fc.Objective

    def decayed(model, X, y, *, l2=0.0, **loss):
        return objective(model, X, y, l2=30 * l2, **loss)

    return vary("gradient_flat", {"Objective": decayed})


@heading(
    here=(
        "in a linear network nearly all searches end at critical points",
        "with tanh all end where the gradient is not zero",
    ),
    thirty_steps=thirty_steps,
    strong_decay=strong_decay,
)
def gradient_flat(d):
    (linear, _), (size, ratio) = (d["ends"][name] for name in ("identity", "tanh"))
    flat = (size > 1e-4) & (ratio < 1e-5)
    return {
        "in a linear network nearly all searches end at critical points": np.mean(linear < 1e-10)
        >= 0.9
        and d["kinds"]["identity"].count("saddle") >= 0.9 * linear.size,
        "with tanh all end where the gradient is not zero": flat.all()
        and set(d["kinds"]["tanh"]) == {"not_critical"},
        "a search can end where the gradient is an eigenvector of eigenvalue 0": flat.any(),
    }


def other_samples(change):
    """Return a control, which returns the numbers that the example `outliers` computes for the
    samples ``change(X, y)`` in place of X and y, with one network of each kind.
    """

    def control(d):
        digits = example("outliers").digits
        changed = lambda *args, **options: change(*digits(*args, **options))  # noqa: E731
        return vary("outliers", pick=one_network, digits=changed)

    return control


def one_network(scale, quick, *larger):
    """Return 1 network of each kind instead of 2, and the quick size of every other parameter, in
    place of the function `pick` of an example.
    """
    return 1 if quick == 2 else quick


def tanh_in_place_of_relu(d):
    """Return the numbers of `outliers` with tanh units in both kinds of networks."""
    tanh = {"MLP": lambda sizes, activation, batch_norm: MLP(sizes, batch_norm=batch_norm)}
    return vary("outliers", tanh, pick=one_network)


@heading(
    tanh_in_place_of_relu=tanh_in_place_of_relu,
    two_classes=other_samples(lambda X, y: (X, y % 2)),
    inputs_with_a_mean=other_samples(lambda X, y: (X + 3, y)),
)
def outliers(d):
    ratios = d["ratios"]
    plain, norm = ratios["relu", False], ratios["relu", True]
    return {
        "with relu the largest eigenvalues are outliers": np.all(plain > 1.2 * norm)
        and np.median(plain) > 2 * np.median(norm),
        "with batch normalisation they are not": norm.max() < 3.5,
        "with tanh there are none": max(ratios["tanh", k].max() for k in (False, True)) < 4.5,
    }


def centred_before(d):
    """Return the numbers of `input_covariance` for inputs whose mean has been subtracted
    beforehand.
    """
    pixels = example("input_covariance").pixels

    def centred(n_samples, seed):
        X, y = pixels(n_samples, seed)
        return X - X.mean(axis=0), y

    return vary("input_covariance", pixels=centred)


@heading(centred_before=centred_before)
def input_covariance(d):
    raw, centred = d["largest"].values()
    return {
        "inputs that are not centred give one large eigenvalue": np.all(raw > 8 * centred)
        and d["gap"] < 1e-12,
        "with their mean subtracted descent is many times faster": np.all(
            6 * d["sooner"] < d["n_steps"]
        ),
    }


# --------------------------------------------------------------------------------------------------
# The column "found here" of docs/papers.md: text with the numbers of the examples.


def found_at_the_edge(d):
    facts = [fact for own in d["facts"].values() for fact in own]
    bounds, means = [2 / rate for rate in d["facts"]], [fact["mean"] for fact in facts]
    return (
        f"the largest eigenvalue rises from some {d['first'].mean():.0f} to 2/rate "
        f"({', '.join(f'{bound:.0f}' for bound in bounds)}) and stays there: its mean is "
        f"{min(means):.2f} to {max(means):.2f} of that in {sum(f['reached'] for f in facts)} of "
        f"{len(facts)} trainings"
    )


def found_by_matching(d):
    first, *_, last = d["shares"]
    return (
        "the barrier is the greatest height of the loss on the straight line between two networks "
        f"above the line between their losses; it falls to {np.median(d['shares'][first]):.0%} in "
        f"networks of {first} units, to {np.median(d['shares'][last]):.0%} in networks of {last}"
    )


def found_by_width(d):
    first, *_, last = d["spread"]["tanh"]
    ratios = (f"{own[first] / own[last]:.0f} ({name})" for name, own in d["spread"].items())
    return (
        f"with {first} units their standard deviation is {' and '.join(ratios)} times that with "
        f"{last}"
    )


def found_gradient_flat(d):
    flat = {name: np.sum((g > 1e-4) & (ratio < 1e-5)) for name, (g, ratio) in d["ends"].items()}
    return (
        f"{flat['tanh']} of {d['ends']['tanh'][0].size} searches by the gradient norm end at such "
        "a point (Hg = 0, but g is not) with tanh, "
        f"{flat['identity']} of {d['ends']['identity'][0].size} in a linear network"
    )


def found_of_outliers(d):
    relu, tanh = (
        [np.median(d["ratios"][name, norm]) for norm in (False, True)] for name in ("relu", "tanh")
    )
    return (
        f"with relu only: in the median the largest eigenvalue is {relu[0]:.1f} times the tenth "
        f"largest without it and {relu[1]:.1f} times with it; with tanh {tanh[0]:.1f} and "
        f"{tanh[1]:.1f}"
    )


FOUND = {
    "edge_of_stability": found_at_the_edge,
    "straight_line": lambda d: (
        f"the loss falls all the way in {np.sum(~d['rises'])} of {d['rises'].size} trainings"
    ),
    "bent_path": lambda d: (
        f"the loss rises to {d['straight'].min():.2f} or more on the straight line, and to at most "
        f"{d['bent'].max():.3f} on the path, for {d['bent'].size} pairs of minima"
    ),
    "matched_units": found_by_matching,
    "index_against_loss": lambda d: (
        f"rank correlations of {min(d['ranks'].values()):.2f} to {max(d['ranks'].values()):.2f} in "
        f"{len(d['ranks'])} networks"
    ),
    "spread_by_width": found_by_width,
    "best_steps": lambda d: (
        "where the curvature is negative, the step to the lowest loss is at least "
        f"{d['ratio']['negative'].min():.0f} times, in the median "
        f"{np.median(d['ratio']['negative']):.0f} times, as long as slope over curvature"
    ),
    "gradient_flat": found_gradient_flat,
    "outliers": found_of_outliers,
    "input_covariance": lambda d: (
        f"the loss that {d['n_steps']} steps reach without centring is reached in "
        f"{d['sooner'].min()} to {d['sooner'].max()} steps with centred inputs"
    ),
}

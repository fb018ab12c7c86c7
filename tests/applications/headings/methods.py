"""Headings of the examples on symmetries, stochastic gradients, Newton's method and fits."""

from types import SimpleNamespace

import numpy as np

import fastcurv as fc
from fastcurv._engine import chosen_arch

from .check import example, heading, reverse, slow, vary

MLP = fc.MLP

# --------------------------------------------------------------------------------------------------
# One network, many solutions.


def rows_alone_permuted(d):
    """Return the relative differences of losses and of eigenvalues that `permutations` compares,
    for a small network whose hidden units are permuted in their incoming weights only, which is no
    symmetry.
    """
    rng = np.random.default_rng(0)
    ob = fc.Objective(fc.MLP([3, 4, 2]), rng.standard_normal((9, 3)), rng.integers(0, 2, 9))
    theta = ob.model.init(rng=0)
    (W, b), last = ob.model.unflatten(theta)
    other = ob.model.flatten([(W[::-1], b[::-1]), last])
    values, others = (np.linalg.eigvalsh(ob.hessian(t).to_dense()) for t in (theta, other))
    return {
        "loss_gaps": [abs(ob.value(other) / ob.value(theta) - 1)],
        "gaps": [np.abs(values - others).max() / np.abs(values).max()],
    }


@heading(rows_alone_permuted=rows_alone_permuted)
def permutations(d):
    return {
        "permuted units have the same loss and eigenvalues": max(d["loss_gaps"]) < 1e-12
        and max(d["gaps"]) < 1e-11,
        "theta moves far away": min(d["distances"]) > 0.1,
        "between the copies the loss rises": d["barrier"] > 1.01,
    }


def no_hidden_units(d):
    """Return the numbers of `many_starts` without hidden units, where the loss is convex."""
    return vary("many_starts", {"MLP": lambda sizes, activation: MLP([2, 1])})


@heading(no_hidden_units=no_hidden_units)
def many_starts(d):
    return {
        "each start classifies every training sample correctly": min(d["right"]) == 1,
        "each ends at a minimum": set(d["kinds"]) == {"minimum"},
        "a convex loss has one optimum": np.ptp(d["optima"], axis=0).max() < 1e-6,
        "and classifies new samples differently": d["distinct"] >= 3
        and np.mean(d["apart"]) > 0.005,
    }


# --------------------------------------------------------------------------------------------------
# Stochastic gradients.


@heading()
def learning_rates(d):
    gaps, meets = d["gaps"], d["meets"]
    good = [name for name in gaps if meets[name]]
    return {
        "three of five rates meet both conditions": good
        == ["inverse time", "power 0.6", "constant, then 1/t"],
        "with these SGD comes closer than with a constant rate": all(
            1.5 * gaps[name].max() < gaps["constant"].min() for name in good
        ),
        "with a finite sum it stops short": 1.5 * gaps["constant"].max() < gaps["power 2"].min(),
    }


@heading(reversed=lambda d: {"gaps": reverse(d["gaps"])})
def constant_rate(d):
    def over_decaying(*panel):
        return [d["gaps"][*panel, "constant"] / d["gaps"][*panel, name] for name in DECAYING]

    return {
        "with a small first rate the constant one is lowest": max(over_decaying(0.05, 8)) < 0.2,
        "with a large one and small batches it is the highest": min(over_decaying(0.5, 8)) > 2,
        "with large batches it is the lowest": max(over_decaying(0.5, 128)) < 1,
    }


DECAYING = ("1/t", "power 0.6")


def one_draw(scale, quick, *larger):
    """Return 1 draw of the samples instead of 5, and the quick size of every other parameter, in
    place of the function `pick` of an example.
    """
    return 1 if quick == 5 else quick


def right_labels(d):
    """Return the numbers of `early_stopping` for samples without wrong labels."""
    problem, digits = example("early_stopping").problem, example("common").digits

    def right(scale, seed):
        ob, held_out, test = problem(scale, seed)
        y = digits(seed=seed)[1][: len(ob.X)]
        return fc.Objective(ob.model, ob.X, y, loss="cross_entropy"), held_out, test

    return vary("early_stopping", problem=right, pick=one_draw)


def last_theta(d):
    """Return the numbers of `early_stopping` if training returns the last theta instead of the one
    with the lowest validation loss.
    """
    minimize = fc.minimize

    def stopped_at_last(*args, **options):
        run = minimize(*args, **options)
        if options.pop("callback") is None:
            return run
        options["max_iter"] = len(run.history["loss"]) - 1
        return SimpleNamespace(x=minimize(*args, **options).x, history=run.history)

    return vary("early_stopping", {"minimize": stopped_at_last}, pick=one_draw)


@heading(right_labels=right_labels, last_theta=last_theta)
def early_stopping(d):
    table = d["table"]
    return {
        "stopped networks have a lower validation loss": np.all(
            table["loss_stopped"] < 0.97 * table["loss_end"]
        ),
        "it is the lowest seen": np.allclose(
            table["loss_stopped"], table["lowest_seen"], rtol=1e-5
        ),
        "they have more of the fresh samples right": np.all(
            table["right_stopped"] > table["right_end"]
        ),
    }


@heading(one_error=lambda d: {"errors": 0 * d["errors"] + 1})
def batch_size(d):
    root = d["errors"] * np.sqrt(d["batches"])[:, None]
    # plain loops gain little from larger batches
    least = 1.2 if chosen_arch() == "reference" else 2
    return {
        "the error of a gradient is as 1 / sqrt(b)": np.all(
            abs(root / root.mean(axis=0) - 1) < 0.3
        ),
        "each sample costs less in a larger batch": min(d["gain"].values()) > least,
    }


# --------------------------------------------------------------------------------------------------
# Newton's method.


def a_parabola(d):
    """Return the numbers of `newton_parabola` for a linear unit in place of tanh, whose loss is
    convex everywhere.
    """
    linear = lambda sizes, bias: MLP(sizes, activation="identity", bias=bias)  # noqa: E731
    return vary("newton_parabola", {"MLP": linear})


@heading(a_parabola=a_parabola)
def newton_parabola(d):
    convex, concave = d["convex"], d["concave"]
    return {
        "where the function is convex the vertex is below": convex["curvature"] > 0
        and max(convex["vertex"], convex["newton"]) < 0,
        "where it is concave it is above": concave["curvature"] < 0
        and min(concave["vertex"], concave["newton"]) > 0,
        "the saddle-free step goes down from both": convex["free"] == convex["newton"]
        and max(convex["free"], concave["free"]) < 0,
    }


def equal_curvatures(d):
    """Return the numbers of `flat_and_steep` for inputs of equal spread and a learning rate below 1
    over the largest eigenvalue.
    """
    return vary("flat_and_steep", SPREADS=(1.0, 1.0), RATE=0.9)


@heading(equal_curvatures=equal_curvatures)
def flat_and_steep(d):
    descent, newton = d["lengths"]["gradient descent"], d["lengths"]["Newton"]
    return {
        "Newton's step is as long where it is flat as where it is steep": abs(newton[0] - newton[1])
        < 1e-6 * newton[1],
        "gradient descent's is short where it is flat and long where it is steep": 100 * descent[0]
        < descent[1]
        and descent[0] < newton[0] < descent[1],
        "Newton's step ends at the minimum, gradient descent does not": d["newton"]
        < 1e-20
        < 0.01
        < d["descent"],
    }


def ten_parameters(d):
    """Return the numbers of `hessian_cost` for networks of six and ten parameters."""
    digits = example("common").digits

    def one_feature(n_samples):
        X, y = digits(n_features=1)
        return np.tile(X, (6, 1)), np.tile(y % 2, 6)

    def small(sizes):
        return MLP([1, min(sizes[1] // 2, 2), 2])

    return vary("hessian_cost", {"MLP": small}, digits=one_feature)


@heading(ten_parameters=ten_parameters)
def hessian_cost(d):
    ratio = np.divide(d["whole"], d["product"])
    return {"the whole Hessian costs many products": np.all(ratio > 10)}


PLAIN = ("newton", "damped-newton", "newton-mr")
WITH_SIGNS = ("saddle-free-newton", "newton-cg", "trust-region", "cubic")


def size(d):
    """Return the scale, "quick" or "normal", at which the example `newton_steps` computed its
    numbers.
    """
    return "quick" if d["starts"] < 20 else "normal"


def two_iterations(d):
    """Return the numbers of `newton_steps` with two iterations of each method instead of 200."""
    minimize = fc.minimize

    def short(*args, max_iter, rng):
        return minimize(*args, max_iter=2, rng=rng)

    return vary("newton_steps", {"minimize": short}, size(d))


@slow
def far_from_the_saddles(d):
    """Return the numbers of `newton_steps` for starts at a distance of about 3 from the saddles."""
    near = example("newton_steps").start_near_critical_point

    def far(U, kept, rng):
        step = rng.standard_normal(2 * U[:, kept].size)
        return near(U, kept, rng) + 3 * step / np.linalg.norm(step)

    return vary("newton_steps", start_near_critical_point=far)


@slow
def small_network(d):
    """Return the counts for random starts that the example `newton_steps` computes with twenty
    starts on the smaller network.
    """

    def twenty(scale, quick, *larger):
        return 20 if quick == 4 else quick

    found = vary("newton_steps", pick=twenty)
    return {name: found[name] for name in ("usual", "usual drawn", "higher")}


@heading(
    two_iterations=two_iterations,
    far_from_the_saddles=far_from_the_saddles,
    small_network=small_network,
)
def newton_steps(d):
    starts = d["starts"]
    stated = {
        "next to a saddle Newton's method ends on it": all(
            d["drawn"][name] == starts for name in PLAIN
        ),
        "methods that use signs reach the minimum": all(
            d["reached"][name] == starts for name in WITH_SIGNS
        ),
    }
    if starts < 20:  # on the smaller network, Newton's method finds minima
        return stated
    return stated | {
        "from random starts Newton's method mostly ends at no critical point": all(
            d["usual"][name] <= 10 and d["usual drawn"][name] <= 2 for name in PLAIN
        )
        and min(d["higher"][name] for name in PLAIN[:2]) >= 3,
        "the others reach the minimum from these, too": all(
            d["usual"][name] == starts for name in WITH_SIGNS
        ),
    }

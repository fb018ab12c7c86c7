"""Headings of the examples on what slows training, and on depth."""

import numpy as np

import fastcurv as fc

from .check import example, heading, shuffled, slow, vary

MLP = fc.MLP

# --------------------------------------------------------------------------------------------------
# What slows training.


@heading()
def plateaus(d):
    work, falls, first = d["work"], d["falls"], d["first"]
    scaled = [(stand, name) for stand in ("saddle", "saturated") for name in ("rmsprop", "adam")]
    saddle = example("common").select(d["table"], stand="saddle")

    def gradients(method, rate):
        at = (saddle["method"] == method) & np.isclose(saddle["rate"], rate, rtol=1e-4)
        return saddle["work"][at]

    return {
        "saturated units are reported as a plateau": d["plateau"].all(),
        "momentum halves the loss near a saddle sooner than SGD": 1.1
        * work["saddle", "momentum"].max()
        < work["saddle", "sgd"].min()
        and falls["momentum"] < falls["sgd"],
        "because SGD, which leaves it sooner, overshoots": first["sgd"][0].max()
        < first["momentum"][0].min()
        and first["sgd"][1].min() > 5
        and first["momentum"][1].max() < 1.5,
        "RMSProp and Adam halve it sooner than momentum": all(
            2.5 * work[stand, name].max() < work[stand, "momentum"].min() for stand, name in scaled
        )
        and 0 < max(falls["rmsprop"], falls["adam"]) < falls["momentum"],
        "L-BFGS needs no rate": 2 * np.median(work["saturated", "l-bfgs"])
        < np.median(work["saturated", "momentum"]),
        "SGD at ten times the rate is as fast as momentum": all(
            gradients("sgd", 10 * rate).size == 10
            and np.all(1.1 * gradients("sgd", 10 * rate) < gradients("momentum", rate))
            for rate in (0.0316228, 0.1, 0.316228)
        ),
    }


def all_samples_at_each_step(d):
    """Return the losses at the ends of the runs of `sudden_drop` from its other saddle, where each
    step uses all samples in place of a mini-batch.
    """
    return {"other_saddle": example("sudden_drop").leave_another_saddle(n_batches=1)}


@heading(here=("from another saddle mini-batches lead away",), no_noise=all_samples_at_each_step)
def sudden_drop(d):
    drops = [d["drops"][size] for size in sorted(d["drops"], reverse=True)]
    right, wrong = d["check"].values()
    other = d["other_saddle"]
    return {
        "the smaller the perturbation, the later the drop": 0 < drops[0] < drops[1] < drops[2],
        "a patience of 20 steps ends on the plateau": d["stops"][min(d["stops"])] > 0.999,
        "without a perturbation there is none": d["kind"] == "saddle"
        and min(d["still"].min(), d["batches"].min()) > 0.9 * d["still"][0],
        "from another saddle mini-batches lead away": other["mini-batches"].max()
        < 0.999 * other["saddle"]
        and abs(other["all samples"] - other["saddle"]) < 1e-6,
        "a gradient check tells a bug from a plateau": right < 1e-5 and wrong > 1e-3,
    }


@heading(last_gradient_alone=lambda d: vary("running_average", DECAY=0.0))
def running_average(d):
    late, batches = d["late"], d["batches"]
    return {
        "a running average is less noisy than a mini-batch": all(
            2 * late[name] < batches[name] for name in late
        ),
        "it is close to the true gradient in its largest components": late["largest"] < 0.25,
        "the median components are noisier": late["median"] > 1.5 * late["largest"]
        and batches["median"] > 2 * batches["largest"],
        "once its bias is corrected": d["early"][0] < 0.5 and abs(d["early"][1] - 1) < 0.4,
    }


ADAM = "Adam, rate 0.001"


@heading(shuffled=lambda d: {"table": d["table"] | {"seen": shuffled(d["table"]["seen"])}})
def escape_times(d):
    growth = {str(name): growth_with_distance(d["table"], name) for name in {*d["table"]["method"]}}
    ratios = np.concatenate([*d["ratio"].values()])
    return {
        "the time near a saddle is predicted": ratios.size >= 16
        and np.mean(abs(ratios - 1) <= 0.1) > 0.7
        and abs(np.median(ratios) - 1) < 0.05,
        "it grows with the logarithm of the inverse distance": np.median(
            [times for name, own in growth.items() if name != ADAM for times in own]
        )
        > 1.5,
        "Adam takes about as many steps from any distance": max(growth[ADAM]) < 1.5,
    }


def growth_with_distance(table, method):
    """Return, for each saddle in the table, the ratio of the longest to the shortest mean escape
    time of a method over the distances of the starts, as a list.
    """
    select = example("common").select
    mine, growth = select(table, method=method), []
    for saddle in np.unique(mine["saddle"]):
        here = select(mine, saddle=saddle)
        means = [np.mean(select(here, size=size)["seen"]) for size in np.unique(here["size"])]
        growth.append(max(means) / min(means))
    return growth


def three_layers(d):
    """Return the numbers of `failed_training` for three layers in place of twenty and one rate."""
    module = example("failed_training")
    networks = {
        name: (sizes[:4] + sizes[-1:] if len(sizes) > 4 else sizes, activation)
        for name, (sizes, activation) in module.NETWORKS.items()
    }

    def one_rate(scale, quick, normal, full):
        return normal[4:5] if np.size(normal) == 7 else quick

    return vary("failed_training", NETWORKS=networks, pick=one_rate)


@heading(three_layers=three_layers)
def failed_training(d):
    ends = d["ends"]
    return {
        "deep networks have a higher training loss than shallow ones": 2
        * ends["1 hidden layer"].max()
        < ends["20 layers, tanh"].min(),
        "with sigmoid they stay at ln 10": np.all(
            abs(ends["20 layers, sigmoid"] - np.log(10)) < 0.05
        )
        and 10 * max(ends["linear"].max(), ends["1 hidden layer"].max())
        < ends["20 layers, sigmoid"].min(),
    }


@heading(causes_of_other_runs=lambda d: {"causes": d["causes"][::-1]})
def why_it_fails(d):
    return {
        "the first advice names the cause": d["causes"] == d["named"] and len(d["named"]) == 6,
        "following it lowers the loss": np.sum(d["falls"] < 0.1) >= 5,
    }


# --------------------------------------------------------------------------------------------------
# Depth.


def two_layers(d):
    """Return the numbers of `gradients_by_depth` for networks with two hidden layers."""
    return vary("gradients_by_depth", pick=lambda scale, quick, *larger: {8: 2}.get(quick, quick))


@heading(two_layers=two_layers)
def gradients_by_depth(d):
    spans = d["spans"]
    return {
        "for tanh Xavier's initialisation keeps the scale": spans["tanh", "half of xavier"]
        > 20 * spans["tanh", "xavier"],
        "for relu He's does": spans["relu", "xavier"] > 5 * spans["relu", "he"],
        "with sigmoid gradients vanish from any": min(
            span for (name, _), span in spans.items() if name == "sigmoid"
        )
        > 100,
    }


def shallow(sizes, activation):
    """Return an `MLP` with one hidden layer and the given activation, whatever `sizes` are."""
    return MLP([64, 24, 10], activation=activation)


def every_factor(scale, quick, normal, full):
    """Return all seven factors, but one rate and one start, in place of the function `pick` of an
    example.
    """
    return normal if np.size(normal) == 7 else normal[3:4] if np.size(normal) == 5 else quick


def one_hidden_layer(d):
    """Return the numbers of `initial_scale` for networks with one hidden layer."""
    return vary("initial_scale", {"MLP": shallow}, pick=every_factor)


def small_inputs(d):
    """Return the numbers of `initial_scale` for networks with one hidden layer and inputs divided
    by a hundred.
    """
    digits = example("common").digits

    def small(n_samples):
        X, y = digits(n_samples)
        return X / 100, y

    return vary("initial_scale", {"MLP": shallow}, pick=every_factor, digits=small)


@heading(one_hidden_layer=one_hidden_layer, small_inputs=small_inputs)
def initial_scale(d):
    tanh, relu = d["tanh"], d["relu"]
    both = (tanh["ends"], relu["ends"])
    growth = np.log2(np.median(relu["gradient"][2.0]) / np.median(relu["gradient"][1.0]))
    return {
        "networks with small weights learn nothing": all(
            min(losses[0.125].min(), losses[0.25].min()) > 2 for losses in both
        ),
        "nor do networks with large ones": all(
            min(losses[4.0].min(), losses[8.0].min()) > 1 for losses in both
        ),
        "training works between": max(losses[1.0].max() for losses in both) < 1,
        "large weights saturate tanh": tanh["saturated"][8.0].min() > 0.6
        and tanh["saturated"][1.0].max() < 0.01,
        # a factor of two in each of ten layers
        "and make the gradient of relu networks explode": 9 < growth < 13,
    }


@slow
def two_hidden_layers(d):
    """Return the numbers of `skip_connections` for networks with two hidden layers, each trained
    from one start at four rates.
    """
    rates = np.array([0.01, 0.1, 0.316228, 1.0])

    def four_rates(scale, quick, normal, full):
        return quick if np.size(normal) == 1 else rates

    return vary("skip_connections", SIZES=[64, 24, 24, 10], pick=four_rates)


@heading(two_hidden_layers=two_hidden_layers)
def skip_connections(d):
    def least(part, activation, name):
        return d[activation, name][part].min()

    def most(part, activation, name):
        return d[activation, name][part].max()

    skip, norm = "skip connections", "batch normalisation"
    return {
        "skip connections keep the gradient of sigmoid networks alive": 1e6
        * most("ratio", "sigmoid", "plain")
        < least("ratio", "sigmoid", skip),
        "batch normalisation does, too": 1e6 * most("ratio", "sigmoid", "plain")
        < least("ratio", "sigmoid", norm),
        "with tanh and relu it flows in the plain network": all(
            least("ratio", name, "plain") > 0.01 for name in ("tanh", "relu")
        )
        and d["sigmoid", "plain"]["ratio"].max() < 0.01,
        "with skip connections the quadratic model holds farther": all(
            least("trusted", name, skip) > 3 * most("trusted", name, "plain")
            for name in ("tanh", "relu")
        ),
        "with batch normalisation less far": all(
            most("trusted", name, norm) < least("trusted", name, "plain")
            for name in ("tanh", "relu")
        ),
        "with skip connections more rates work": all(
            2 * d[name, skip]["losses"][rate].max() < d[name, "plain"]["losses"][rate].min()
            for name in ("tanh", "relu")
            for rate in (0.01, 0.1, 0.316228)
        )
        and d["sigmoid", skip]["range"][1] >= 1,
        "with batch normalisation larger rates work": all(
            np.nan_to_num(d[name, norm]["range"][1]) > np.nan_to_num(d[name, "plain"]["range"][1])
            for name in ("tanh", "sigmoid", "relu")
        ),
        "plain networks of sigmoids learn nothing": min(
            losses.min() for losses in d["sigmoid", "plain"]["losses"].values()
        )
        > 2.2,
    }


def two_epochs(d):
    """Return the numbers of `covariate_shift` with two epochs of training."""
    return vary("covariate_shift", pick=lambda scale, quick, *larger: {15: 2}.get(quick, quick))


@heading(two_epochs=two_epochs)
def covariate_shift(d):
    plain, norm = d["plain"], d["batch norm"]
    growth = [facts["spread"][1] / facts["spread"][0] for facts in (plain, norm)]
    tables = [d["ends"], d["others"]]
    higher = [{where: ends[0] > ends[1] for where, ends in table.items()} for table in tables]
    return {
        "batch normalisation keeps the inputs centred and scaled": plain["shift"]
        > 2 * norm["shift"]
        and growth[0] > 2 * growth[1],
        "a sample alone has the outputs that it has among all": d["alone"] < 1e-8,
        "whether the loss ends lower depends on the rate": set(higher[0].values()) == {False, True},
        "and on the network": higher[0] != higher[1],
    }

"""Pairs of objectives and points in different units, whose numbers differ by powers of two, to
compare their verdicts.

``python -m tests.critical.units 500`` classifies 500 small, briefly trained networks of every loss
and activation in each kind of units, and prints every pair of verdicts that differ. ``--first``
sets the first seed, ``--only`` selects one kind of units.
"""

import argparse
import sys
import warnings
from collections import Counter

import numpy as np

import fastcurv as fc

ACTIVATIONS = (
    *("identity", "tanh", "sigmoid", "softplus", "silu", "gelu", "relu", "leaky_relu", "elu"),
)
LOSSES = ("mse", "cross_entropy", "binary_cross_entropy")
HOMOGENEOUS = ("identity", "relu", "leaky_relu")
POWERS = (-12, -5, 5, 12)
MAX_PARAMS = 24  # maximum number of parameters of a network


def network(draw, kind):
    """Return (model, X, y, options, theta) of a small network that can be rescaled in units of the
    given kind, with theta at the end of a search.
    """
    names = HOMOGENEOUS if kind == "layer" else ACTIVATIONS
    while True:
        hidden = [int(draw.integers(1, 5)) for _ in range(int(draw.integers(kind == "layer", 3)))]
        loss = "mse" if kind == "targets" else str(draw.choice(LOSSES))
        d, c = int(draw.integers(1, 4)), int(draw.integers(1 + (loss == "cross_entropy"), 4))
        bias = bool(draw.random() < 0.8)
        activation = [str(draw.choice(names)) for _ in hidden]
        model = fc.MLP([d, *hidden, c], activation, bias=bias)
        if model.n_params <= MAX_PARAMS:
            break
    N = int(draw.integers(3, 30))
    X = draw.standard_normal((N, d))
    if loss == "mse":
        y = X @ draw.standard_normal((d, c)) + 0.3 * draw.standard_normal((N, c))
    elif loss == "cross_entropy":
        y = draw.integers(c, size=N)
    else:
        y = (draw.random((N, c)) < 0.5) * 1.0
    l2 = 10.0 ** draw.uniform(-4, -1) if kind == "loss" and draw.random() < 0.5 else 0.0
    options = {"loss": loss, "l2": l2, "sample_weight": None}
    ob = fc.Objective(model, X, y, **options)
    theta = model.init(rng=int(draw.integers(2**31)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        way = draw.choice(["find", "minimize", "briefly"])
        if way == "find":
            theta = fc.find_critical_point(ob, theta, "newton-mr", max_iter=60, verdict=False).x
        else:
            most = 200 if way == "minimize" else int(draw.integers(2, 12))
            theta = fc.minimize(ob, theta, "trust-region", max_iter=most, rng=0).x
    return model, X, y, options, theta


def in_other_units(kind, net, power):
    """Return (objective, theta) for `net`, a tuple from `network`, expressed in other units of the
    given kind, which differ by 2^power.
    """
    model, X, y, options, theta = net
    unit, theta = 2.0**power, theta.copy()
    layers = model.unflatten(theta)
    if kind == "targets":
        y = unit * y
        multiply(layers[-1], unit)
    elif kind == "inputs":
        X = unit * X
        layers[0][0][:] /= unit
    elif kind == "loss":
        options = {**options, "l2": options["l2"] * unit, "sample_weight": np.full(len(X), unit)}
    else:
        layer = abs(power) % (len(layers) - 1)
        multiply(layers[layer], unit)
        layers[layer + 1][0][:] /= unit
    return fc.Objective(model, X, y, **options), theta


def multiply(layer, unit):
    for part in layer:
        if part is not None:
            part *= unit


KINDS = ("targets", "inputs", "loss", "layer")


def unit_free_facts(ob, theta):
    """Return (facts, verdict), where `facts` is a tuple with the parts of the verdict that no
    change of units may alter: kind, certificate, inertia, and whether two fixed vectors are the
    proof.
    """
    found = fc.classify(ob, theta)
    inertia = (found.n_positive, found.n_negative, found.n_zero)
    return (found.kind, found.certified, inertia, found.rule == "two_vector_saddle"), found


def pairs(kind, seed):
    """Return (description, one, other), where `one` and `other` are the results of
    `unit_free_facts` for the network of a seed, before and after a change of units of the given
    kind.
    """
    net = network(np.random.default_rng([seed, KINDS.index(kind)]), kind)
    model, X, _, options, theta = net
    power = POWERS[seed % len(POWERS)]
    one = unit_free_facts(fc.Objective(model, X, net[2], **options), theta)
    other = unit_free_facts(*in_other_units(kind, net, power))
    words = f"{kind} seed {seed}, 2^{power}: {list(model.sizes)} {model.activation} "
    return words + f"{options['loss']} l2 {options['l2']:.1e} N {len(X)}", one, other


def main():
    """Classify all pairs, print those whose verdicts differ, and return 1 if there are any, or else
    0.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="networks of each kind of units")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    broken = 0
    for kind in KINDS:
        if options.only not in kind:
            continue
        kinds, worse, lost = Counter(), 0, 0
        for seed in range(options.first, options.first + options.count):
            words, (one, a), (other, b) = pairs(kind, seed)
            kinds[f"{a.kind}{' certified' * a.certified}"] += 1
            if one != other:
                worse += 1
                sure = any(s[1] and not s[3] for s in (one, other))
                lost += sure
                print(f"{words}\n    {one}\n    {other}", flush=True)
        print(f"{kind}: {worse} of {options.count}, {lost} certified by the theorem; {kinds}")
        broken += worse
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

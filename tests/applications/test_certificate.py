"""Certificates: what the checker confirms is true, what it refuses is refused without a traceback,
and the library's proofs are confirmed.
"""

import ast
import copy
import json
import os
import random
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from mpmath import mp, mpf

import fastcurv as fc
from fastcurv.applications.certificate import check_certificate as checker
from fastcurv.applications.certificate import save
from fastcurv.applications.certificate.check_certificate import Ball, check
from fastcurv.applications.cli.parser import main

from ..certify.test_majorants import largest_change
from .certificate_oracle import Oracle

CHECKER = Path(checker.__file__)
ACTIVATIONS, LOSSES = sorted(checker.ACTIVATIONS), checker.LOSSES


def problem(sizes, activation, loss, seed=0, n_rows=6, l2=0.01, weights=False, **options):
    """Return an objective on random rows and targets, and a random theta."""
    rng = np.random.default_rng([seed, len(sizes)])
    X, d_out = rng.standard_normal((n_rows, sizes[0])), sizes[-1]
    y = {
        "mse": rng.standard_normal((n_rows, d_out)),
        "cross_entropy": rng.integers(d_out, size=n_rows),
        "binary_cross_entropy": rng.uniform(0, 1, (n_rows, d_out)),
        "poisson": rng.poisson(1.5, (n_rows, d_out)).astype(float),
    }[loss]
    weight = rng.uniform(0, 2, n_rows) if weights else None
    l2_biases = options.pop("l2_biases", True)
    model = fc.MLP(sizes, activation, **options)
    ob = fc.Objective(model, X, y, loss, l2, weight, l2_biases=l2_biases)
    return ob, rng.standard_normal(model.n_params)


def random_network(seed):
    """Return an objective of a random small network, and the point where a search ends."""
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(0, 3))
    sizes = rng.integers(1, [5, *[6] * depth, 4]).tolist()
    weights, l2 = bool(rng.random() < 0.3), 10 ** rng.uniform(-4, -1)
    ob, theta = problem(
        sizes,
        [str(name) for name in rng.choice(ACTIVATIONS, depth, p=[0.15, 0.1, 0.2, 0.2, 0.35])],
        str(rng.choice(LOSSES)),
        seed,
        int(rng.integers(8, 40)),
        float(l2) if rng.random() < 0.9 else 0.0,
        weights,
        bias=bool(rng.random() < 0.8),
        residual=bool(rng.random() < 0.3),
        batch_norm=bool(rng.random() < 0.05),
        l2_biases=bool(rng.random() < 0.7),
    )
    search = fc.minimize if rng.random() < 0.7 else fc.find_critical_point
    return ob, search(ob, theta).x


def certificate(ob, theta):
    """Return the certificate of theta as a dict."""
    return save.certificate_document(ob, theta, fc.classify(ob, theta))


def certificate_of_values(ob, theta):
    """Return a certificate that claims the loss and the norm of the gradient to 12 digits."""
    document = save.problem_document(ob, theta)
    exact = save.ExactPoint(document, theta)
    values = exact.point.loss(), checker.norm(exact.point.gradient())
    ends = [
        [(float(v.mid / checker.ONE) * s).hex() for s in (1 - 1e-12, 1 + 1e-12)] for v in values
    ]
    claim = {"kind": "values", "loss": ends[0], "gradient_norm": ends[1]}
    return document | {"claim": claim, "correction": [(0.0).hex()] * len(theta)}


def toy_saddle():
    """Return the certificate of the saddle at 0 of (w2 w1 - 1)^2."""
    toy = fc.Objective(fc.MLP([1, 1, 1], "identity", bias=False), [[1.0]], [1.0], "mse")
    return certificate(toy, np.zeros(2))


def saddle_with_zero_eigenvalues():
    """Return the certificate of a saddle at which one hidden unit is off."""
    ob, _ = problem([1, 1, 1], "tanh", "mse", n_rows=4, l2=0.0)
    theta = np.array([0.0, 0.0, 0.0, float(np.mean(ob.y))])
    return certificate(ob, theta)


def small_minimum(loss="mse", activation="tanh"):
    ob, theta = problem([1, 2, 1], activation, loss, n_rows=5, l2=1e-3)
    return certificate(ob, fc.minimize(ob, theta).x)


def encode(document):
    return json.dumps(document).encode()


# --- balls


def random_ball(rng):
    m = int(rng.integers(-(2**62), 2**62)) << int(rng.integers(0, 190))
    return Ball(m, int(rng.integers(0, 2**40)) << int(rng.integers(0, 150)))


def test_ball_operations_contain_exact_results_at_their_ends():
    rng = np.random.default_rng(0)
    for _ in range(400):
        x, y = random_ball(rng), random_ball(rng)
        pairs = [
            (Fraction(a, checker.ONE), Fraction(b, checker.ONE))
            for a in (x.low, x.mid, x.high)
            for b in (y.low, y.mid, y.high)
        ]
        operations = {"add": x + y, "sub": x - y, "mul": x * y, "dot": checker.dot([x, y], [y, y])}
        if abs(y.mid) > y.rad:
            operations["div"] = x / y
        for a, b in pairs:
            exact = {"add": a + b, "sub": a - b, "mul": a * b, "dot": a * b + b * b}
            exact["div"] = a / b if b else 0
            for name, ball in operations.items():
                low, high = Fraction(ball.low, checker.ONE), Fraction(ball.high, checker.ONE)
                assert low <= exact[name] <= high, name


@pytest.mark.parametrize(
    "name, exact, low, high",
    [
        ("exp", mp.exp, -300, 900),
        ("exp", mp.exp, -1e-9, 1e-9),
        ("log", mp.log, 1e-6, 1e9),
        ("log", mp.log, 0.9, 1.1),
        ("sqrt", mp.sqrt, 0, 1e6),
        ("sigmoid", lambda z: 1 / (1 + mp.exp(-z)), -400, 400),
        ("softplus", lambda z: mp.log(1 + mp.exp(z)), -400, 400),
    ],
)
def test_elementary_functions_contain_exact_results(name, exact, low, high):
    """A ball of the function contains the results at the ends and the middle of its argument, and
    its radius is at most 2^-200 of the size of the numbers for an exact argument.
    """
    mp.dps = 500
    rng = np.random.default_rng(0)
    for x in rng.uniform(low, high, 40):
        for radius in (0, 1 << 200):
            middle = checker.from_float(float(x))
            argument = Ball(middle.mid, radius if middle.mid > radius or low < 0 else 0)
            ball = getattr(checker, name)(argument)
            for end in (argument.low, argument.mid, argument.high):
                value = exact(mpf(end) / checker.ONE) * checker.ONE
                assert ball.low <= value <= ball.high
            if not argument.rad:
                assert ball.rad <= max(abs(ball.mid), checker.ONE) >> 200


# --- derivatives and majorants


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_loss_and_derivatives_agree_with_differences_in_sixty_digits(activation, loss):
    options = {"residual": loss == "mse", "bias": loss != "poisson", "weights": loss == "mse"}
    sizes = [2, 2, 2] if loss == "cross_entropy" else [2, 2, 2, 1]
    ob, theta = problem(
        sizes, activation, loss, n_rows=2, l2_biases=activation == "tanh", **options
    )
    document = certificate_of_values(ob, theta)
    oracle, point = Oracle(json.dumps(document)), save.ExactPoint(document, theta).point
    H, gradient = oracle.hessian(oracle.theta), oracle.gradient(oracle.theta)
    pairs = [(point.loss(), oracle.loss(oracle.theta)), *zip(point.gradient(), gradient)]
    for i, row in enumerate(point.hessian()):
        pairs += [(x, H[i, j]) for j, x in enumerate(row)]
    for ball, value in pairs:
        assert abs(mpf(ball.mid) / checker.ONE - value) <= mpf(10) ** -54 * (1 + abs(value))
        assert ball.rad <= checker.ONE >> 220


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_lipschitz_constant_lies_above_third_differences(activation, loss):
    rng = np.random.default_rng([len(activation), len(loss)])
    for case, sizes in enumerate([[3, 4, 2], [2, 3, 3, 3, 2], [3, 1], [1, 1, 1]]):
        options = {"bias": case != 1, "residual": case == 1, "weights": case == 2}
        ob, theta = problem(sizes, [activation] * (len(sizes) - 2), loss, seed=case, **options)
        theta *= 2.0 ** rng.integers(-2, 2)
        exact = save.ExactPoint(save.problem_document(ob, theta), theta)
        for radius in (1e-3, 0.1, 1.0):
            L = exact.lipschitz(radius)
            change = largest_change(ob, theta, radius, rng, 6)
            assert change <= L * (1 + 1e-9) + 1e-9 / radius
            if activation == "relu" and np.isfinite(L):
                assert ob.certificates.kinks(theta, radius) == 0


def test_bounds_on_derivatives_of_activations_and_losses_hold():
    """The constants of the checker are at least the derivatives on a grid, computed by mpmath, and
    exceed the largest of them by at most 1%.
    """
    mp.dps = 30
    functions = {
        "tanh": mp.tanh,
        "sigmoid": lambda z: 1 / (1 + mp.exp(-z)),
        "softplus": lambda z: mp.log(1 + mp.exp(z)),
    }
    for name, function in functions.items():
        for k, bound in enumerate(checker.ACTIVATIONS[name][1], start=1):
            most = max(abs(mp.diff(function, x / 20, k)) for x in range(-200, 200))
            assert most <= mpf(bound.mid) / checker.ONE * (1 + mpf(10) ** -12)
            assert mpf(bound.mid) / checker.ONE <= 1.01 * most
    rng, ratios = np.random.default_rng(0), []
    for _ in range(4000):
        p = rng.dirichlet(np.full(rng.integers(2, 5), 0.3))
        v = rng.standard_normal(len(p))
        v /= np.linalg.norm(v)
        centred = v - p @ v
        ratios.append((p @ centred**2 / 0.5, abs(p @ centred**3) / 0.2722))
    assert 0.9 < np.max(ratios) <= 1


# --- the library's certificates


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_certificates_of_minima_are_confirmed_and_not_refuted(activation, loss):
    document = small_minimum(loss, activation)
    status, sentence = check(encode(document))
    assert status == 0 and "minimum" in sentence
    assert Oracle(json.dumps(document)).refutation() == ""


@pytest.mark.parametrize("make", [toy_saddle, saddle_with_zero_eigenvalues])
def test_certificates_of_saddles_are_confirmed_and_not_refuted(make):
    document = make()
    assert check(encode(document))[0] == 0
    assert document["claim"]["kind"] == "saddle"
    assert Oracle(json.dumps(document)).refutation() == ""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_certificate_of_a_float32_network_states_its_stored_numbers(dtype, tmp_path):
    ob, theta = problem([2, 3, 1], "tanh", "mse", n_rows=9, dtype=dtype)
    x = fc.minimize(ob, theta).x
    point = fc.classify(ob, x)
    path = tmp_path / "point.json"
    fc.save_certificate(path, ob, x, point)
    stored = [float.fromhex(t) for t in json.loads(path.read_text())["theta"]]
    assert np.array_equal(stored, np.asarray(x, dtype)) and checker.check_file(str(path))[0] == 0


@pytest.mark.parametrize("path", [1 + 0j, None, 3, b"point.json", ["point.json"]])
def test_paths_that_are_no_paths_are_not_understood(path):
    words = "Not understood: a file cannot be read (TypeError)."
    assert checker.check_file(path) == (2, words)


def count_confirmed(seeds):
    """Return the numbers of random networks with a proved verdict, of those that the checker
    covers, and of those that it confirms.
    """
    n_proved = n_covered = n_confirmed = 0
    for seed in seeds:
        ob, theta = random_network(seed)
        point = fc.classify(ob, theta)
        if not point.certified:
            continue
        n_proved += 1
        try:
            document = save.certificate_document(ob, theta, point)
        except ValueError as error:
            n_covered += "the checker covers" not in str(error)
            continue
        n_covered += 1
        n_confirmed += check(encode(document))[0] == 0
    return n_proved, n_covered, n_confirmed


def test_the_proofs_of_random_networks_are_confirmed():
    n_proved, n_covered, n_confirmed = count_confirmed(range(2, 8))
    assert n_proved >= 4 and n_covered >= 3 and n_confirmed >= 0.95 * n_covered


def test_a_search_that_ends_at_vanishing_weights_returns_a_verdict():
    """This search ends with weights near 1e-320, for which balanced units would overflow."""
    ob, theta = random_network(29)
    assert 0 < np.abs(theta[theta != 0]).min() < 1e-300
    assert not fc.classify(ob, theta).certified


@pytest.mark.nightly
def test_the_proofs_of_two_hundred_random_networks_are_confirmed():
    n_proved, n_covered, n_confirmed = count_confirmed(range(200))
    assert n_covered >= 0.7 * n_proved >= 70 and n_confirmed >= 0.95 * n_covered


def uncovered_points():
    ob, theta = problem([2, 3, 1], "tanh", "mse", n_rows=9)
    yield "not proved", ob, theta
    plain, start = problem([2, 2, 1], "identity", "mse", n_rows=9, l2=0.0)
    yield "zero eigenvalues", plain, fc.minimize(plain, start).x
    for name, loss, options in (
        ("'silu'", "mse", {"activation": "silu"}),
        ("'gamma'", "gamma", {}),
    ):
        y = np.linspace(1, 2, 9)
        other = fc.Objective(fc.MLP([2, 2, 1], **options), ob.X, y, loss, l2=0.05)
        yield name, other, fc.minimize(other, other.model.init(rng=0)).x


def test_points_that_the_checker_does_not_cover_raise_an_error_with_the_reason(tmp_path):
    for reason, ob, theta in uncovered_points():
        point = fc.classify(ob, theta)
        with pytest.raises(ValueError, match=reason):
            fc.save_certificate(tmp_path / "point.json", ob, theta, point)
    assert list(tmp_path.iterdir()) == []


def test_a_verdict_on_another_theta_raises_an_error(tmp_path):
    ob, theta = problem([2, 3, 1], "tanh", "mse", n_rows=9)
    x = fc.minimize(ob, theta).x
    with pytest.raises(ValueError, match="another theta"):
        fc.save_certificate(tmp_path / "point.json", ob, x + 1e-6, fc.classify(ob, x))


# --- files that must not be accepted


def set_entry(document, path, value):
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value(document[path[-1]]) if callable(value) else copy.deepcopy(value)


def scaled(factor):
    return lambda text: (float.fromhex(text) * factor).hex()


# Key: what is false. Value: the certificate, entries with their new values, and the exit status.
FALSE_FILES = {
    "eigenvalue too large": ("minimum", {("claim", "min_abs_eigenvalue"): scaled(1.01)}, 1),
    "radius too small": ("minimum", {("claim", "radius"): scaled(0.5)}, 1),
    "radius that reaches other points": ("minimum", {("claim", "radius"): (1e3).hex()}, 1),
    "radius 0": ("minimum", {("claim", "radius"): (0.0).hex()}, 2),
    "radius -0": ("minimum", {("claim", "radius"): (-0.0).hex()}, 2),
    "negative radius": ("minimum", {("claim", "radius"): scaled(-1.0)}, 2),
    "infinite radius": ("minimum", {("claim", "radius"): "inf"}, 2),
    "radius NaN": ("minimum", {("claim", "radius"): "nan"}, 2),
    "radius as a number": ("minimum", {("claim", "radius"): 1}, 2),
    "eigenvalue 0": ("minimum", {("claim", "min_abs_eigenvalue"): (0.0).hex()}, 2),
    "negative eigenvalue": ("minimum", {("claim", "min_abs_eigenvalue"): scaled(-1.0)}, 2),
    "minimum called saddle": ("minimum", {("claim", "kind"): "saddle"}, 2),
    "inertia of a saddle": (
        "minimum",
        {("claim", "kind"): "saddle", ("claim", "positive"): 6, ("claim", "negative"): 1},
        1,
    ),
    "saddle called minimum": ("saddle", {("claim", "kind"): "minimum"}, 2),
    "saddle with the inertia of a minimum": (
        "saddle",
        {("claim", "kind"): "minimum", ("claim", "positive"): 2, ("claim", "negative"): 0},
        1,
    ),
    "true for 1": ("saddle", {("claim", "positive"): True}, 2),
    "counts that do not add up": ("minimum", {("claim", "positive"): 8}, 2),
    "negative count": ("minimum", {("claim", "positive"): 8, ("claim", "negative"): -1}, 2),
    "another correction": ("minimum", {("correction", 0): (1e-9).hex()}, 1),
    "huge correction": ("minimum", {("correction", 0): (1e30).hex()}, 1),
    "another theta": ("minimum", {("theta", 0): scaled(1 + 1e-9)}, 1),
    "huge theta": ("minimum", {("theta", 0): (1e200).hex()}, 2),
    "theta NaN": ("minimum", {("theta", 0): "nan"}, 2),
    "theta beyond doubles": ("minimum", {("theta", 0): "0x1.0p+99999"}, 2),
    "theta with 20 digits": ("minimum", {("theta", 0): "0x1.00000000000000000001p+0"}, 2),
    "theta too short": ("minimum", {("theta",): lambda theta: theta[:-1]}, 2),
    "another target": ("minimum", {("data", "y", 0, 0): scaled(1 + 1e-9)}, 1),
    "another l2": ("minimum", {("loss", "l2"): scaled(1 + 1e-9)}, 1),
    "negative l2": ("minimum", {("loss", "l2"): scaled(-1.0)}, 2),
    "l2 without biases": ("minimum", {("loss", "l2_biases"): False}, 1),
    "other loss": ("minimum", {("loss", "name"): "poisson"}, 2),
    "unknown loss": ("minimum", {("loss", "name"): "gamma"}, 2),
    "other activation": ("minimum", {("network", "activations", 0): "sigmoid"}, 1),
    "relu, near a kink": ("minimum", {("network", "activations", 0): "relu"}, 1),
    "negative weight": ("minimum", {("data", "sample_weight"): [(-1.0).hex()] * 5}, 2),
    "other weights": ("minimum", {("data", "sample_weight"): [(0.5).hex()] * 5}, 1),
    "too few weights": ("minimum", {("data", "sample_weight"): [(1.0).hex()] * 4}, 2),
    "no rows": ("minimum", {("data", "X"): [], ("data", "y"): []}, 2),
    "skip between other sizes": ("minimum", {("network", "skips", 0): True}, 2),
    "huge size": ("minimum", {("network", "sizes", 1): 10**8}, 2),
    "size 0": ("minimum", {("network", "sizes", 1): 0}, 2),
    "negative size": ("minimum", {("network", "sizes", 1): -2}, 2),
    "size as a list": ("minimum", {("network", "sizes", 1): [2]}, 2),
    "kind as a list": ("minimum", {("claim", "kind"): ["minimum"]}, 2),
    "additional key": ("minimum", {("claim",): lambda claim: claim | {"proved": True}}, 2),
    "format 2": ("minimum", {("format",): "fastcurv certificate 2"}, 2),
    "rows elsewhere": ("minimum", {("data",): {"sha256": "0" * 64}}, 2),
    "negative too low": ("directions", {("claim", "negative_curvature"): scaled(3.0)}, 1),
    "positive too high": ("directions", {("claim", "positive_curvature"): scaled(3.0)}, 1),
    "negative curvature 0": ("directions", {("claim", "negative_curvature"): (0.0).hex()}, 2),
    "directions of radius 1": ("directions", {("claim", "radius"): (1.0).hex()}, 1),
    "direction zero": ("directions", {("claim", "negative_direction"): [(0.0).hex()] * 4}, 1),
    "class out of range": ("classes", {("data", "y", 0): 2}, 2),
    "negative class": ("classes", {("data", "y", 0): -1}, 2),
    "class as a boolean": ("classes", {("data", "y", 0): True}, 2),
    "label above 1": ("labels", {("data", "y", 0, 0): (1.5).hex()}, 2),
    "negative count of events": ("counts", {("data", "y", 0, 0): (-1.0).hex()}, 2),
    "exponential of 2^90": ("counts", {("theta", -1): (2.0**90).hex()}, 1),
    "loss outside": ("values", {("claim", "loss"): [(0.0).hex(), (0.1).hex()]}, 1),
    "interval upside down": ("values", {("claim", "loss"): lambda ends: ends[::-1]}, 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def certificates():
    ob, theta = problem([1, 2, 1], "tanh", "mse", n_rows=5, l2=0.05)
    classes, start = problem([1, 2, 2], "tanh", "cross_entropy", n_rows=5, l2=1e-2)
    return {
        "minimum": small_minimum(),
        "saddle": toy_saddle(),
        "directions": saddle_with_zero_eigenvalues(),
        "values": certificate_of_values(ob, theta),
        "classes": certificate(classes, fc.minimize(classes, start).x),
        "labels": small_minimum("binary_cross_entropy"),
        "counts": small_minimum("poisson"),
    }


@pytest.mark.parametrize("name", FALSE_FILES)
def test_false_files_are_not_confirmed(name, certificates):
    base, changes, wanted = FALSE_FILES[name]
    document = copy.deepcopy(certificates[base])
    assert check(encode(document))[0] == 0
    for path, value in changes.items():
        set_entry(document, path, value)
    status, sentence = check(encode(document))
    assert status == wanted, sentence


def test_exchanged_directions_are_not_confirmed(certificates):
    document = copy.deepcopy(certificates["directions"])
    claim = document["claim"]
    names = "negative_direction", "positive_direction"
    claim.update(zip(names, [claim[name] for name in names[::-1]]))
    assert check(encode(document))[0] == 1


def test_a_row_counts_whose_weight_is_below_the_resolution():
    """A row of weight 2^-257 and target 2^100 moves the minimum from 0 to 8/9."""
    one, huge, tiny, none = (float(x).hex() for x in (1, 2.0**100, 2.0**-257, 0))
    weights = [(2.0**-60).hex(), tiny]
    numbers = {"radius": (2.0**-20).hex(), "min_abs_eigenvalue": (2.0**-61).hex()}
    document = {
        "format": checker.FORMAT,
        "network": {"sizes": [1, 1], "activations": [], "skips": [], "bias": False},
        "loss": {"name": "mse", "l2": none, "l2_biases": True},
        "data": {"X": [[one], [huge]], "y": [[none], [huge]], "sample_weight": weights},
        "theta": [none],
        "claim": {"kind": "minimum", "positive": 1, "negative": 0, **numbers},
        "correction": [none],
    }
    assert check(encode(document))[0] == 1
    weights[1] = none
    assert check(encode(document))[0] == 0


MALFORMED = {
    "nothing": b"",
    "no JSON": b"\x00\xff\xfe",
    "a number": b"1",
    "null": b"null",
    "a list": b"[]",
    "half a document": b'{"format": "fastcurv certificate 1", ',
    "deep lists": b"[" * 200_000,
    "deep closed lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a million digits": b'{"format": ' + b"9" * 1_000_000 + b"}",
    "a huge exponent": b'{"format": 1e999999999}',
    "NaN": b'{"format": NaN}',
    "minus infinity": b'{"format": -Infinity}',
    "UTF-16": '{"format": 1}'.encode("utf-16"),
    "a lone surrogate": b'{"\\ud800": 1}',
    "too large": b'"' + b" " * checker.MAX_BYTES + b'"',
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_not_understood(name):
    assert check(MALFORMED[name])[0] == 2


def test_a_repeated_key_is_not_understood(certificates):
    text = json.dumps(certificates["minimum"])
    for key in ("theta", "radius", "l2", "y"):
        assert check(re.sub(f'"{key}":', f'"{key}": null, "{key}":', text).encode())[0] == 2


JUNK = [None, True, -1, 0, 10**8, "", "nan", "inf", "-0x0.0p+0", "0x1.0p+1023", [], [[]], {}, 1.5]


def mutated(document, choose):
    """Return the bytes of a certificate with one to three changes drawn by `choose`."""
    document = copy.deepcopy(document)
    for _ in range(choose.choice([1, 1, 2, 3])):
        paths = list(paths_of(document))
        path, value = choose.choice(paths)
        if choose.random() < 0.5:  # numbers of the claim are few, but matter most
            path, value = choose.choice([p for p in paths if p[0][0] in ("claim", "loss")] or paths)
        if isinstance(value, str) and value.startswith(("0x", "-0x")) and choose.random() < 0.85:
            x = float.fromhex(value)
            new = choose.choice(
                [
                    x * (1 + 2.0 ** -choose.randint(1, 52)),
                    x * (1 - 2.0 ** -choose.randint(1, 52)),
                    x * 2.0 ** choose.randint(-40, 40),
                    -x,
                    choose.uniform(-2, 2),
                ]
            )
            set_entry(document, path, new.hex())
        elif choose.random() < 0.5:
            others = [v for p, v in paths if type(v) is type(value)]
            set_entry(document, path, choose.choice(others))
        else:
            set_entry(document, path, choose.choice(JUNK))
    raw = bytearray(json.dumps(document).encode())
    if choose.random() < 0.15:
        place = choose.randrange(len(raw))
        raw[place : place + choose.randint(0, 5)] = bytes(choose.choices(range(256), k=2))
    return bytes(raw)


def paths_of(value, path=()):
    """Yield pairs of the path and the value of each node of a JSON document except its root."""
    if path:
        yield path, value
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from paths_of(value[key], (*path, key))


@pytest.mark.parametrize("n", [80, pytest.param(1000, marks=pytest.mark.nightly)])
def test_no_mutated_file_is_confirmed_against_sixty_digits(n, certificates):
    """None of n changed certificates is confirmed if an independent program refutes its claim in 60
    digits, and none raises an exception. At least one in ten is confirmed.
    """
    choose, n_confirmed, bases = random.Random(n), 0, list(certificates.values())
    for i in range(n):
        raw = mutated(bases[i % len(bases)], choose)
        status, sentence = check(raw)
        assert status in (0, 1, 2) and sentence
        if status == 0:
            n_confirmed += 1
            assert Oracle(raw.decode()).refutation() == "", raw
    assert n_confirmed >= n / 10


# --- the program


def test_the_checker_imports_the_standard_library_alone():
    tree = ast.parse(CHECKER.read_text(encoding="utf-8"))
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def run_alone(folder, *arguments):
    program = folder / "check_certificate.py"
    program.write_bytes(CHECKER.read_bytes())
    return subprocess.run(
        [sys.executable, "-I", "-S", str(program), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_checker_runs_alone_and_returns_its_status(tmp_path, certificates):
    good, bad = certificates["minimum"], copy.deepcopy(certificates["minimum"])
    bad["theta"][0] = (0.0).hex()
    (tmp_path / "good.json").write_bytes(encode(good))
    (tmp_path / "bad.json").write_bytes(encode(bad))
    os.mkfifo(tmp_path / "pipe")  # it is not opened, which would wait for a writer
    for arguments, status, word in (
        (["good.json"], 0, "Confirmed"),
        (["bad.json"], 1, "Not confirmed"),
        (["missing.json"], 2, "Not understood"),
        (["."], 2, "Not understood"),
        (["x" * 5000], 2, "Not understood"),
        (["pipe"], 2, "Not understood"),
        (["good.json", "--data", "good.json"], 2, "usage"),
        ([], 2, "usage"),
        (["good.json", "--rows", "x"], 2, "usage"),
    ):
        done = run_alone(tmp_path, *arguments)
        assert done.returncode == status and word in done.stdout and done.stderr == ""


def test_the_shell_checks_certificates(tmp_path, capsys):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 2))
    ob = fc.Objective(fc.MLP([2, 2, 1]), X, X[:, 0] + rng.standard_normal(30), "mse", l2=1e-2)
    run, path = fc.minimize(ob), str(tmp_path / "point.json")
    fc.save_certificate(path, ob, run.x, run.report)
    assert main(["check", path]) == 0
    assert "Exactly one critical point" in capsys.readouterr().out
    document = json.loads(Path(path).read_text())
    document["theta"][0] = (0.5).hex()
    Path(path).write_text(json.dumps(document))
    assert main(["check", path]) == 1
    Path(path).write_text("{")
    assert main(["check", path]) == 2

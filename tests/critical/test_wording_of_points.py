"""The printed form of verdicts whose evidence is partly unknown."""

import itertools
import json
import re
from dataclasses import fields, replace

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.critical.report import reword_for_fit, reword_for_run
from fastcurv.testing import QuadraticObjective

BOWL = QuadraticObjective(np.diag([1.0, 2.0, 3.0]))


@pytest.fixture(scope="module")
def point():
    return fc.classify(BOWL, np.zeros(3), seed=0)


@pytest.mark.parametrize("seed", [0, np.int64(3), np.random.default_rng(0)])
def test_to_dict_has_plain_values_only(point, seed):
    """The result of `to_dict` contains only numbers, strings, bools, lists, dicts and
    None.
    """
    odd = replace(
        point, seed=seed, failure_probability=np.nan, lambda_max=np.float32(np.inf),
        complement_eigenvalue=None, certified=np.bool_(True), nearest_verdict=point,
        nearest_point=np.array([1.0, np.nan, -2.0]),
    )  # fmt: skip
    facts = odd.to_dict()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert set(facts) == {f.name for f in fields(odd)} - {"_advice", "_rule"} | {
        "index",
        "minimum_ratio",
    }
    assert facts["certified"] is True and facts["lambda_min_bounds"] == list(odd.lambda_min_bounds)
    assert (
        facts["failure_probability"]
        is facts["lambda_max"]
        is facts["complement_eigenvalue"]
        is None
    )
    assert (
        facts["nearest_point"] == [1.0, None, -2.0] and facts["nearest_verdict"] == point.to_dict()
    )


def test_repr_shows_the_known_evidence(point):
    text = repr(point)
    assert "certified" in text and "3 positive, 0 negative" in text and "kinks" not in text
    assert point.index == 0 and point.minimum_ratio == 1 and point.summary() == text


def test_repr_shows_risks_kinks_and_bounds(point):
    odd = replace(
        point, certified=False, failure_probability=1e-3, n_kinks=4, n_negative=None,
        n_positive=None, n_negative_bounds=(1, 3), nearest_verdict=point, nearest_distance=0.25,
    )  # fmt: skip
    text, page = repr(odd), odd._repr_html_()
    assert "minimum, with an error probability of 0.001" in text
    assert "between 1 and 3 of 3 eigenvalues negative" in text
    assert "4 pre-activations within rounding" in text
    assert "nearest     a certified minimum at a distance of 0.25" in text
    assert odd.index is None and odd.minimum_ratio is None
    for words in ("between 1 and 3", "4 pre-activations", "0.25"):
        assert words in page
    doubted = replace(odd, nearest_verdict=replace(point, certified=False))
    assert "nearest     a minimum at" in repr(doubted)


def test_the_proof_of_a_saddle_by_two_vectors_claims_no_critical_point():
    """If two vectors prove a saddle, the evidence excludes minima and maxima. If the theorem proves
    a critical point, the evidence gives its distance.
    """
    bowl = QuadraticObjective(np.diag([-1.0, *np.linspace(1, 2, 60)]))
    everywhere = fc.classify(bowl, np.zeros(61), dense_below=0, seed=0)
    assert dict(everywhere.evidence())["proof"] == "no minimum or maximum at any point"
    nearby = replace(everywhere, radius=1e-3)
    assert dict(nearby.evidence())["proof"] == "no minimum or maximum within 0.001 of theta"
    exact = fc.classify(bowl, np.zeros(61), seed=0)
    assert exact.certified and dict(exact.evidence())["proof"] == "at theta, h = 0"


def test_sentences_have_at_most_25_words():
    """The sentence of every verdict has at most 25 words and names the kind of the point."""
    point = fc.classify(fc.testing.lecture_toy(), np.zeros(2), seed=0)
    assert point.sentence == (
        "Proved saddle: the Hessian has eigenvalues of both signs. "
        "Use fastcurv.escape(ob, theta) to leave it."
    )
    kinds = ("minimum", "maximum", "saddle", "degenerate", "not_critical", "undecided")
    for kind, certified, risk, zeros, plateau in itertools.product(
        kinds, (True, False), (0.0, 0.004, np.nan), (None, 0, 12), (False, True)
    ):
        other = replace(
            point, kind=kind, certified=certified, failure_probability=risk, n_zero=zeros,
            n_symmetry=zeros, plateau=plateau,
        )  # fmt: skip
        for told in (other, reword_for_run(other), reword_for_fit(other)):
            assert len(told.sentence.split()) <= 25 and told.sentence.endswith(".")
        assert "ob, theta" not in told.sentence
        assert kind.replace("_", " ") in other.sentence.lower()
        assert repr(other).splitlines()[1].strip() == other.sentence


def square(rank):
    """Return the objective ``(sum of the first `rank` x_i^2) / 2`` in three dimensions, which is
    constant along the other axes without a known symmetry.
    """
    return QuadraticObjective(np.diag([1.0] * rank + [0.0] * (3 - rank)))


class Function:
    """An objective that is defined by its value, gradient and Hessian, with two parameters by
    default.
    """

    def __init__(self, value, gradient, hessian, n_params=2):
        self.n_params = n_params
        self.value, self.gradient = value, lambda x: np.array(gradient(x), dtype=float)
        self.hessian = lambda x: np.array(hessian(x), dtype=float)


def test_a_proved_minimum_claims_no_increase_in_every_direction():
    """At loss 0 with more parameters than residuals, the loss is constant along directions that
    `n_symmetry` does not include. The sentence therefore claims a local minimum but no increase in
    every direction.
    """
    X, y = np.array([[1.0], [2.0]]), np.array([[0.5], [-0.3]])
    ob = fc.Objective(fc.MLP([1, 4, 1], "tanh"), X, y, "mse")
    run = fc.minimize(ob, ob.model.init(seed=0), "levenberg-marquardt", seed=0, gradient_tol=1e-14)
    point = fc.classify(ob, run.x)
    assert point.certified and point.n_zero > 0 and not point.n_symmetry
    assert re.fullmatch(
        r"Proved minimum: a local minimum lies within 1e[-+]\d\d of theta. Training has converged.",
        point.sentence,
    )
    within = float(re.search(r"within (\S+) of", point.sentence)[1])
    assert point.radius <= within <= 10 * point.radius
    flat = np.linalg.svd(ob.jacobian(run.x).to_dense())[2][-1]
    assert ob.value(run.x + 1e-6 * flat) < 1e-20  # the loss does not increase along this direction


def test_kink_minima_with_copied_units_claim_no_strict_minimum():
    """At a minimum with active relu kinks, also with a unit split into two, the sentence claims
    only a local minimum nearby.
    """
    rng = np.random.default_rng(0)
    X = rng.standard_normal((32, 3))
    y = np.maximum(X @ rng.standard_normal((3, 1)), 0) + 0.1 * rng.standard_normal((32, 1))
    ob = fc.Objective(fc.MLP([3, 3, 1], "relu"), X, y, "mse", l2=0.1)
    small = fc.minimize(ob, ob.model.init(seed=0), seed=0)
    assert small.report.certified and small.report.n_active_kinks
    (W, b), (V, c) = ob.model.unflatten(small.x.copy())
    i = int(np.argmax(np.linalg.norm(W, axis=1)))
    split = np.diag(np.where(np.arange(3) == i, 0.8, 1.0))
    split = np.vstack([split, 0.6 * (np.arange(3) == i)])
    wide = fc.Objective(fc.MLP([3, 4, 1], "relu"), X, y, "mse", l2=0.1)
    theta = wide.model.flatten([(split @ W, split @ b), (V @ split.T, c)])
    copied = fc.classify(wide, theta)
    assert copied.certified and "one of a family with the same loss" in copied.reason
    for point in (small.report, copied):
        assert re.fullmatch(
            r"Proved minimum: a local minimum lies within 1e-\d\d of theta. "
            "Training has converged.",
            point.sentence,
        )


def test_each_rule_has_its_sentence():
    """For each rule, the verdict at a point constructed for the rule has the expected sentence."""
    said = {}

    def sentence_at(name, ob, theta, **options):
        said[name] = fc.classify(ob, np.asarray(theta, dtype=float), **options)
        return said[name].sentence

    use = "Use fastcurv.escape(ob, theta) to leave it."
    assert sentence_at("minimum", BOWL, [0, 0, 0]) == (
        "Proved minimum: a local minimum lies at theta. Training has converged."
    )
    top = QuadraticObjective(-np.diag([1.0, 2.0]))
    assert (
        sentence_at("top", top, [0, 0]) == f"Proved maximum: a local maximum lies at theta. {use}"
    )
    assert sentence_at("flat", square(2), [0, 0, 0]) == (
        "Degenerate: 1 eigenvalue counts as zero without a known symmetry, so the kind is "
        "unknown. Use fastcurv.minimize(ob, theta) to search for a lower point."
    )
    assert sentence_at("zero", square(0), [0, 0, 0]).startswith(
        "Degenerate: every eigenvalue counts as zero, so"
    )
    assert re.fullmatch(
        r"Not critical: the gradient norm is \S+ times its tolerance\. "
        r"Use fastcurv\.minimize\(ob, theta\) to continue\.",
        sentence_at("far", BOWL, [1, 1, 1]),
    )
    assert sentence_at("none", BOWL, [1, 1, 1], gradient_tol=0.0).startswith(
        "Not critical: the gradient norm is 3.742, above its tolerance. "
    )
    bare = Function(
        lambda x: x[0] ** 2 + x[1] ** 2 + x[0] ** 4,
        lambda x: [2 * x[0] + 4 * x[0] ** 3, 2 * x[1]],
        lambda x: [[2 + 12 * x[0] ** 2, 0], [0, 2]],
    )
    assert sentence_at("measured", bare, [0, 0]) == (
        "Minimum, not proved: every eigenvalue of the Hessian at theta is positive. "
        "Training has probably converged."
    )
    ridge = Function(
        lambda x: x[0] ** 2 - x[1] ** 2 + x[0] ** 4,
        lambda x: [2 * x[0] + 4 * x[0] ** 3, -2 * x[1]],
        lambda x: [[2 + 12 * x[0] ** 2, 0], [0, -2]],
    )
    assert sentence_at("ridge", ridge, [0, 0]) == (
        f"Saddle, not proved: the Hessian has eigenvalues of both signs. {use}"
    )
    assert {point.kind for point in said.values()} == {
        "minimum", "maximum", "saddle", "degenerate", "not_critical"
    }  # fmt: skip


def test_sentences_at_infinity_at_a_risk_and_with_few_products():
    """Verdicts for an infimum at infinity, at a risk, and with too few products have the expected
    sentences.
    """
    said = {}

    def sentence_at(name, ob, theta, **options):
        said[name] = fc.classify(ob, np.asarray(theta, dtype=float), **options)
        return said[name].sentence

    one = fc.Objective(fc.MLP([1, 2], []), [[1.0], [2.0]], [0, 0], "cross_entropy")
    assert sentence_at("infinity", one, np.zeros(4)) == (
        "Not critical: the loss is proved to decrease without end from here, towards an infimum "
        "that no point attains. Use l2 on all parameters."
    )
    big = QuadraticObjective(np.diag(np.linspace(1.0, 2.0, 60)))
    at = {"dense_below": 0, "seed": 0, "curvature_tol": 0.2}
    hidden = Function(big.value, big.gradient, lambda x: None, 60)
    hidden.hessian = big.hessian
    assert sentence_at("risk", hidden, np.zeros(60), failure_probability=0.1, **at).startswith(
        "Minimum, with an error probability of "
    ) and said["risk"].sentence.endswith(
        "no eigenvalue at theta lies below -0.2 times (lambda_max - lambda_min); negative ones "
        "nearer zero are possible."
    )
    assert sentence_at("open", hidden, np.zeros(60), max_products=5, **at) == (
        "Undecided: the gradient at theta is within its tolerance, but the evidence does not "
        "determine the kind of this point. See `reason`."
    )
    assert [point.kind for point in said.values()] == ["not_critical", "minimum", "undecided"]


def test_the_report_of_a_run_does_not_advise_the_same_run():
    """The report of a run of `minimize` does not advise calling `minimize` again with equal
    options.
    """
    rng = np.random.default_rng(1)
    x = np.linspace(-1, 1, 200)[:, None]
    y = np.sin(3 * x) + 0.1 * rng.standard_normal(x.shape)
    ob = fc.Objective(fc.MLP([1, 10, 1], "tanh"), x, y, "mse")
    point = fc.classify(ob, ob.model.init(seed=0))
    assert "Use fastcurv.minimize(ob, theta) to continue." in point.sentence
    ended = reword_for_run(point)
    assert ended.sentence.endswith("The message of the run says why it ended.")
    assert "fastcurv.minimize" not in repr(ended)
    run = fc.minimize(ob, ob.model.init(seed=0), max_iter=300, seed=0)
    assert run.report is None or "fastcurv.minimize" not in repr(run.report)


@pytest.mark.parametrize(
    "y, n_out, loss, weight, words",
    [
        ([0, 0, 0], 2, "cross_entropy", None, "no sample has class 1. "),
        ([0, 0, 0], 4, "cross_entropy", None, "3 classes have no sample, class 1 among them. "),
        ([0, 1, 2], 3, "cross_entropy", [1, 0, 0], "2 classes have no sample of nonzero weight, "),
        ([[1, 0]] * 3, 2, "binary_cross_entropy", None,
         "every sample has the same label at each of 2 outputs, output 0 among them. "),
    ],
)  # fmt: skip
def test_a_loss_without_a_minimum_names_its_classes_or_outputs(y, n_out, loss, weight, words):
    ob = fc.Objective(fc.MLP([1, n_out], []), np.ones((3, 1)), y, loss, sample_weight=weight)
    assert f", since {words}" in fc.classify(ob, ob.model.init(seed=0)).reason

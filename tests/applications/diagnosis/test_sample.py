"""`sample_critical_points` returns critical points, and labels trivial ones."""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

import fastcurv as fc
from fastcurv.applications.diagnosis import sample as sampling
from fastcurv.applications.diagnosis.sample import (
    MAX_STARTS_PER_SEARCH,
    _add_unit,
    trivial_point_reason,
)
from fastcurv.network.row_views import with_model
from fastcurv.structure import flip_tanh, permute_hidden
from fastcurv.testing import QuadraticObjective
from tests import nets

pytestmark = pytest.mark.by_day(share=1 / 2)


@pytest.fixture(scope="module")
def ob():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    return fc.Objective(fc.MLP([3, 4, 2]), X, y, l2=1e-3)


@pytest.fixture(scope="module")
def sample(ob):
    return fc.sample_critical_points(ob, 9, epochs=(10, 100), rng=1)


def test_every_point_is_critical_and_has_the_verdict_of_classify(ob, sample):
    assert 4 <= len(sample) <= sample.n_tries == 9
    scale = np.linalg.norm(ob.gradient(ob.model.init(rng=0)))
    for point in sample:
        assert np.linalg.norm(ob.gradient(point.theta)) <= 1e-4 * scale
        assert point.loss == ob.value(point.theta)
        again = fc.classify(ob, point.theta, rng=0)
        assert point.kind == again.kind != "not_critical"
    assert {"narrower", "descent"} <= {point.source for point in sample}
    assert [p.loss for p in sample] == sorted(p.loss for p in sample)
    assert sum(sample.counts().values()) + len(sample.trivial) == len(sample)


def test_samples_are_sequences(sample):
    points = list(sample)
    assert len(points) == len(sample) > 1
    assert sample[0] is points[0] and sample[-1] is points[-1] and sample[:2] == tuple(points[:2])


def test_a_seed_gives_the_same_points(ob, sample):
    again = fc.sample_critical_points(ob, 9, epochs=(10, 100), rng=1)
    assert all(np.array_equal(a.theta, b.theta) for a, b in zip(sample, again, strict=True))


@pytest.mark.parametrize(
    ("activation", "l2"), [("tanh", 0.0), ("tanh", 1e-2), ("sigmoid", 0.0), ("relu", 0.0)]
)
def test_minima_with_added_units_are_critical_points_of_wider_networks(activation, l2):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((60, 2))
    y = X[:, :1] * X[:, 1:] + 0.3 * rng.standard_normal((60, 1))
    wide = fc.Objective(fc.MLP([2, 3, 1], activation=activation), X, y, loss="mse", l2=l2)
    found = fc.sample_critical_points(wide, 6, sources="narrower", rng=0)
    assert len(found) >= 3
    narrow = [point for point in found if point.widths[0] < 3 and not point.trivial]
    assert narrow and all(point.kind in ("saddle", "degenerate", "minimum") for point in narrow)


def test_constant_output_points_are_labelled_trivial(ob):
    n = ob.n_params
    assert trivial_point_reason(ob, np.zeros(n)) == "all weights zero"
    (W, b), (V, c) = ob.model.unflatten(ob.model.init(rng=0))
    assert trivial_point_reason(ob, ob.model.flatten([(W, b), (0 * V, c)])) == "constant output"
    assert trivial_point_reason(ob, ob.model.flatten([(W, b), (V, c)])) is None
    nearly = ob.model.flatten([(W, b), (1e-2 * V, c)])  # outputs that vary by a few hundredths
    assert trivial_point_reason(ob, nearly) == "constant output"
    own = SimpleNamespace(model=ob.model)  # without bounds on its outputs
    assert trivial_point_reason(own, ob.model.flatten([(W, b), (0 * V, c)])) is None
    assert trivial_point_reason(own, np.zeros(n)) == "all weights zero"
    zero = fc.Objective(ob.model, ob.X, ob.y, l2=10.0)  # theta = 0 is the only critical point
    found = fc.sample_critical_points(zero, 2, sources="descent", rng=0)
    assert len(found.trivial) == len(found) == 2 and found.counts() == {}
    assert "and trivial: 2 minimum" in repr(found)


def test_sampling_respects_max_time_and_rejects_invalid_options(ob, ticks):
    quick = fc.sample_critical_points(ob, 1000, sources="descent", max_time=0.2, rng=0)
    assert quick.n_tries < 1000
    deep = fc.Objective(fc.MLP([3, 4, 4, 2], residual=True), ob.X, ob.y)
    with pytest.raises(ValueError, match="no units can be added"):
        fc.sample_critical_points(deep, 3)
    with pytest.raises(ValueError, match="sources must be .*got 'wish'"):
        fc.sample_critical_points(ob, 3, sources="wish")
    with pytest.raises(ValueError, match="sources must hold at least one"):
        fc.sample_critical_points(ob, 3, sources=())


@pytest.mark.parametrize("options", [{}, {"sources": "descent"}, {"index": [0, 2]}])
def test_searches_that_exceed_max_time_are_abandoned(options, ticks):
    """Sampling ends within its time limit of 0.1 s, although a single search would take tens of
    times as long, and returns no undecided point.
    """
    rng = np.random.default_rng(5)
    X, y = rng.standard_normal((60, 20)), rng.integers(3, size=60)
    widths = [20, 12, 3] if "index" in options else [20, 60, 60, 3]
    large = fc.Objective(fc.MLP(widths), X, y, l2=3e-3)
    began = time.perf_counter()
    left = fc.sample_critical_points(large, 1000, max_time=0.1, rng=0, **options)
    assert left.n_tries <= 1 and time.perf_counter() - began <= 0.1 + 5 * ticks
    assert all(point.kind != "undecided" for point in left)


@pytest.mark.parametrize("kind", ["sparse", "streamed", "streamed sparse"])
def test_sparse_and_streamed_samples_give_the_same_points(ob, kind):
    X = ob.X[:20] if kind == "streamed" else csr_matrix(ob.X[:20])
    rows = {} if kind == "sparse" else {"block_rows": 8}
    there = (fc.StreamedObjective if rows else fc.Objective)(
        ob.model, X, ob.y[:20], l2=1e-2, **rows
    )
    dense = fc.Objective(ob.model, ob.X[:20], ob.y[:20], l2=1e-2)
    small, theta = fc.MLP([3, 2, 2]), ob.model.init(rng=0)
    narrow = with_model(there, small).value(theta[:14])
    assert narrow == pytest.approx(with_model(dense, small).value(theta[:14]), rel=1e-13)
    for t in (theta, np.r_[theta[:16], 0 * theta[16:]], 1e-9 * theta, 0 * theta):
        assert trivial_point_reason(there, t) == trivial_point_reason(dense, t)
    assert (
        trivial_point_reason(dense, theta) is None
        and trivial_point_reason(dense, 1e-9 * theta) is not None
    )
    if kind == "sparse":
        found = fc.sample_critical_points(there, 1, sources="descent", max_iter=3, rng=0)
        assert found.n_tries == 1


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"epochs": 5}, TypeError, "epochs must be two ints.*got 5"),
        ({"epochs": (5,)}, ValueError, r"epochs must be two ints.*got \(5,\)"),
        ({"epochs": (50, 5)}, ValueError, "the minimum and the maximum"),
        ({"sources": 5}, TypeError, "sources must be some of narrower.*got an int"),
        ({"index": -1}, ValueError, "index must be from 0 to 26, the number of parameters, got -1"),
        (
            {"index": [0, 27]},
            ValueError,
            "index must be from 0 to 26, the number of parameters, got 27",
        ),
        (
            {"index": []},
            ValueError,
            "index must be one or several ints from 0 to n, got an empty list",
        ),
        ({"index": {0, 1}}, TypeError, "index must be .*got {0, 1}"),
        ({"index": 1, "sources": "descent"}, ValueError, "sources must be 'walk'"),
        ({"sources": {"walk", "descent"}}, TypeError, "sources must be .*got a set"),  # no order
        ({"max_iter": 1.5}, TypeError, "max_iter must be .*got 1.5"),
        ({"krylov": None}, TypeError, "sample_critical_points has no argument 'krylov'"),
    ],
)
def test_options_are_checked_before_the_first_search(ob, options, error, words, monkeypatch):
    monkeypatch.setattr("fastcurv.applications.diagnosis.sample.minimize", None)
    with pytest.raises(error, match=words):
        fc.sample_critical_points(ob, 1, **options)


def test_sampling_an_objective_without_a_network_raises():
    with pytest.raises(TypeError, match="must be an objective of a network"):
        fc.sample_critical_points(QuadraticObjective(np.eye(2)), 1, sources="descent")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("split", [True, False])
def test_adding_a_unit_does_not_change_the_outputs(split, bias):
    rng = np.random.default_rng(0)
    narrow, wide = (fc.MLP([3, m, 2], "softplus", bias) for m in (4, 6))
    theta, X = narrow.init(rng=1) + 0.1, rng.standard_normal((9, 3))
    below, above = (list(layer) for layer in narrow.unflatten(theta))
    for _ in range(2):
        _add_unit(below, above, split, 0.3, rng)
    more = wide.flatten([tuple(below), tuple(above)])
    expected = narrow.predict(theta, X)
    assert np.allclose(wide.predict(more, X), expected, rtol=1e-13, atol=1e-13)
    (W, b), (V, _) = wide.unflatten(more)
    assert W[4:].any() == split and V[:, 4:].any() == split
    assert not bias or (b[4:] == 0.3).all() != split


@pytest.mark.parametrize("sizes", [[4, 5, 3], [3, 4, 4, 2]])
def test_points_of_the_requested_index_are_found_and_proved(sizes):
    net = nets.draw(7, sizes, "tanh", "cross_entropy", N=50, l2=1e-2)
    found = fc.sample_critical_points(net.ob, 12, index=[0, 1, 0, 3], rng=2)
    assert found.n_tries == 12 <= found.n_walks <= 12 * MAX_STARTS_PER_SEARCH
    there = [p for p in found if p.verdict.certified and p.verdict.n_negative == p.requested_index]
    assert len(there) >= 11
    assert sum(p.requested_index for p in there) >= 3 * (1 + 3) - 3
    for point in there:
        H = net.ref.hessian(point.theta) @ np.eye(net.n)
        assert np.sum(np.linalg.eigvalsh((H + H.T) / 2) < 0) == point.requested_index
        assert point.verdict.kantorovich < 0.5


def test_equivalent_points_count_once():
    net = nets.draw(7, [4, 5, 3], "tanh", "cross_entropy", N=50, l2=1e-2)
    found = fc.sample_critical_points(net.ob, 8, index=[0, 1], rng=0)
    rng, copies = np.random.default_rng(0), []
    for point in found.points * 3:
        theta = permute_hidden(net.model, point.theta, 0, rng.permutation(5))
        theta = flip_tanh(net.model, theta, 0, np.flatnonzero(rng.integers(2, size=5)))
        copies.append(replace(point, theta=theta, loss=float(net.ob.value(theta))))
    more = sampling.CriticalPointSample(copies, 24, 24, net.model)
    assert len(more) == 24 and len(more.distinct) == len(found.distinct) <= 8
    spectra = {
        tuple(np.linalg.eigvalsh(net.ob.hessian(p.theta).to_dense()).round(6))
        for p in found.distinct
    }
    assert len(found.distinct) == len(spectra) >= 2


def test_searches_that_never_begin_cost_nothing(ob):
    """Requests for 2^40 searches or starts with a time limit end without time or memory for those
    that never begin, whose generators would need 2^46 bytes.
    """
    rng = np.random.default_rng(0)
    found = fc.sample_critical_points(ob, 2**40, max_time=1e-3, rng=rng)
    assert found.n_tries <= 1 and rng.bit_generator.seed_seq.n_children_spawned <= 2
    run = fc.minimize(ob, n_init=2**40, max_time=1e-3, rng=0, verdict=False)
    assert 1 <= len(run.starts) <= 64


def test_searches_that_do_not_converge_are_counted(ob, monkeypatch):
    lost = lambda ob, theta, **options: SimpleNamespace(x=theta)  # noqa: E731
    monkeypatch.setattr(sampling, "find_critical_point", lost)
    found = fc.sample_critical_points(ob, 2, index=1, epochs=(1, 2), rng=0)
    assert len(found) == 0 and found.n_tries == 2 and found.n_walks == 2 * MAX_STARTS_PER_SEARCH
    assert repr(found).startswith("CriticalPointSample: 0 points from 2 searches by 8 walks")


def test_an_interrupted_sample_returns_its_points_so_far(ob, sample, monkeypatch):
    whole, classify, calls = sample, sampling.classify, []

    def pressed(*words, **options):
        calls.append(1)
        if len(calls) == after:
            raise KeyboardInterrupt
        return classify(*words, **options)

    monkeypatch.setattr(sampling, "classify", pressed)
    after = 2
    some = fc.sample_critical_points(ob, 9, epochs=(10, 100), rng=1)
    assert 0 < len(some) < len(whole)
    calls.clear()
    after = 1
    with pytest.raises(KeyboardInterrupt):
        fc.sample_critical_points(ob, 9, epochs=(10, 100), rng=1)


def test_the_repr_of_a_sample_mentions_only_existing_trivial_points(sample):
    plain = sampling.CriticalPointSample([p for p in sample if not p.trivial], sample.n_tries)
    assert "trivial" not in repr(plain) and "9 searches" in repr(plain)

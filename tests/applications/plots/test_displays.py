"""Displays of spectra, loss landscapes, convergence and verdicts show the numbers that were
computed.
"""

import numpy as np
import pytest
from scipy.optimize import OptimizeResult

import fastcurv as fc
from fastcurv.applications.plots.landscape import filter_normalised_direction
from fastcurv.spectrum.density import density_of_matrix_eigenvalues
from fastcurv.spectrum.draw import reflect_density_at_bounds

from ...spectrum.test_zeros import VALUES

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(scope="module")
def net():
    """Return (ob, theta): a small network, and a critical point found by Newton-CG."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 4)), rng.integers(3, size=40)
    ob = fc.Objective(fc.MLP([4, 5, 3]), X, y, loss="cross_entropy", l2=1e-2)
    return ob, fc.minimize(ob, ob.model.init(rng=0), "newton-cg", rng=0).x


def test_a_spectrum_shows_density_error_band_and_eigenvalues(net):
    ob, theta = net
    shown = fc.SpectrumDisplay.from_objective(ob, theta, k=3, n_probes=3, n_steps=8, rng=0)
    exact = fc.eigvalsh(ob.hessian(theta))
    assert np.allclose(shown.eigenvalues, [*exact[:3], *exact[-3:]], atol=1e-5)
    ax = shown.ax_
    assert np.array_equal(ax.lines[0].get_ydata(), shown.density.density)
    names = ax.get_legend_handles_labels()[1]
    assert any("2 standard errors of 3 probes" in name for name in names)
    assert any("6 positive eigenvalues" in name for name in names)
    assert shown.figure_ is ax.figure
    plt.close(shown.figure_)
    assert fc.SpectrumDisplay(shown.density)._repr_png_().startswith(b"\x89PNG")


def test_error_bands_always_show_two_standard_errors(net):
    ob, theta = net
    density = fc.spectral_density(ob.hessian(theta), n_probes=3, n_steps=10, rng=0)
    for ax in (density.plot(), fc.SpectrumDisplay(density).plot().ax_):
        names = ax.get_legend_handles_labels()[1]
        assert sum("2 standard errors" in name for name in names) == 1
        points = ax.collections[0].get_paths()[0].vertices
        assert points[:, 1].max() == pytest.approx((density.density + 2 * density.stderr).max())


@pytest.mark.parametrize("axis", ["linear", "log"])
def test_densities_are_restricted_to_proved_bounds_without_loss_of_mass(axis):
    H = np.diag(np.concatenate([np.full(30, 0.5), np.linspace(0.6, 3.0, 20)]))
    density = fc.spectral_density(H, n_probes=4, n_steps=30, axis=axis, rng=0)
    assert density.grid[0] < 0.5
    inside = reflect_density_at_bounds(density, 0.5, 3.0)
    assert inside.grid[0] == pytest.approx(0.5) and inside.grid[-1] == pytest.approx(3.0)
    assert inside.integral() == pytest.approx(density.integral(), abs=2e-3)
    assert reflect_density_at_bounds(density) is density
    shown = fc.SpectrumDisplay(density, bounds=(0.5, np.inf))
    assert shown.density.grid[0] == pytest.approx(0.5)


def test_losses_of_a_slice_are_those_at_its_points(net):
    ob, theta = net
    shown = fc.LandscapeDisplay.from_objective(ob, theta, n_grid=5, radius=0.5, rng=3)
    assert shown.losses[2] == ob.value(theta) and shown.losses.shape == (5,)
    assert shown.losses[4] == ob.value(theta + 0.5 * shown.directions[0])
    plane = fc.LandscapeDisplay.from_objective(ob, theta, n_dims=2, n_grid=3, rng=3)
    first, second = plane.directions
    assert plane.losses[0, 2] == ob.value(theta + first - second)
    assert plane.losses[2, 1] == ob.value(theta + 0 * first + second)


def test_random_directions_have_the_norm_of_each_units_weights(net):
    ob, theta = net
    direction = filter_normalised_direction(ob, theta, np.random.default_rng(0))
    for (W, _), (D, d) in zip(ob.model.unflatten(theta), ob.model.unflatten(direction)):
        assert np.allclose(np.linalg.norm(W, axis=1), np.linalg.norm(D, axis=1), rtol=1e-12)
        assert not d.any() and not np.allclose(W, D)


def test_eigenvector_slices_follow_the_extreme_eigenvectors(net):
    ob, theta = net
    H = ob.hessian(theta).to_dense()
    values = np.linalg.eigvalsh(H)
    one = fc.LandscapeDisplay.from_objective(ob, theta, directions="eigenvectors", n_grid=3)
    two = fc.LandscapeDisplay.from_objective(
        ob, theta, directions="eigenvectors", n_dims=2, n_grid=3
    )
    for v, value in ((one.directions[0], values[0]), *zip(two.directions, values[[0, -1]])):
        assert v @ H @ v == pytest.approx(value, rel=1e-6)
        assert f"{value:.3g}" in one.names[0] + two.names[1]


def test_the_error_of_the_taylor_polynomial_is_of_third_order(net):
    ob, theta = net
    shown = fc.LandscapeDisplay.from_objective(ob, theta, n_grid=9, radius=0.01, rng=0)
    error = np.abs(shown.taylor - shown.losses)
    assert 0.1 * error[0] <= error[2] <= 0.16 * error[0]  # the error is cubic in the distance
    names = shown.ax_.get_legend_handles_labels()[1]
    assert names == ["loss", "second-order Taylor"]


def test_plotted_minimum_ratios_equal_those_of_the_verdicts():
    points = [
        type("P", (), {"loss": 1.0 * i, "verdict": v, "trivial": i == 1})()
        for i, v in enumerate(
            fc.classify(fc.testing.QuadraticObjective(np.diag(d)), np.zeros(2))
            for d in ([1.0, 2.0], [1.0, -1.0], [-1.0, -1.0])
        )
    ]
    shown = fc.MinimumRatioDisplay.from_points(points)
    assert shown.ratios.tolist() == [1.0, 0.5, 0.0]
    assert shown.kinds.tolist() == ["minimum", "saddle", "maximum"]
    names = shown.ax_.get_legend_handles_labels()[1]
    assert names == ["minimum (1)", "maximum (1)", "saddle, trivial (1)"]
    index = fc.MinimumRatioDisplay.from_points(points, quantity="index")
    assert index.ratios.tolist() == [0.0, 0.5, 1.0]


def test_an_inertia_is_drawn_as_three_fractions():
    valley = fc.testing.QuadraticObjective(np.diag([1.0, 2.0, 0.0, 0.0]))
    points = [type("P", (), {"loss": 0.5, "verdict": fc.classify(valley, np.zeros(4))})()]
    shown = fc.MinimumRatioDisplay.from_points(points, quantity="inertia")
    assert shown.ratios.tolist() == [[0.5, 0.0, 0.5]]
    assert shown.ax_.get_legend_handles_labels()[1] == ["positive", "negative", "zero"]
    assert [line.get_xdata()[0] for line in shown.ax_.lines] == [0.5, 0.0, 0.5]


def test_convergence_curves_show_the_history(net):
    ob, _ = net
    runs = {m: fc.minimize(ob, ob.model.init(rng=1), m, rng=0) for m in ("newton-cg", "l-bfgs")}
    shown = fc.ConvergenceDisplay.from_results(runs, x="iteration", above=0.1)
    x, y = shown.curves["l-bfgs"]
    assert np.array_equal(y, np.asarray(runs["l-bfgs"].history["loss"]) - 0.1)
    assert shown.ax_.get_yscale() == "log" and shown.ax_.get_xlabel() == "iterations"
    assert shown.ax_.get_ylabel() == "loss above 0.1"
    assert f"newton-cg (ends: {runs['newton-cg'].kind})" in [
        line.get_label() for line in shown.ax_.lines
    ]


RUN = OptimizeResult(x=np.zeros(1), fun=0.0, history={"time": [0.0], "loss": [1.0]}, kind="saddle")
BARE, EMPTY = OptimizeResult(x=np.zeros(1)), OptimizeResult(x=np.zeros(1), history=np.ones(3))
BOWL, LINE = (fc.testing.QuadraticObjective(np.diag(d)) for d in ([2.0, 6.0], [2.0]))
# Calls that raise, and a part of the error. `at` is [3, 4], and `ob` and `t` are those of `net`.
REFUSED = [
    ("Landscape.from_objective(ob, t, directions='up')", "directions must be one of"),
    ("Landscape.from_objective(ob, t, directions=[1.0])", "directions must have shape"),
    ("Landscape.from_objective(ob, t, n_dims=3)", "n_dims must be .*got 3"),
    ("Landscape.slice(ob, t, radius='a')", "radius must be .*got 'a'"),
    ("Landscape.slice(ob, t, radius=np.nan)", "radius must be .*got nan"),
    ("Landscape.slice(ob, t, n_dims=[1])", "n_dims must be an.*got .1."),
    ("Landscape.slice(BOWL, at, directions=[0, 0])", "got a row of zeros"),
    ("Landscape.slice(BOWL, at, directions=[[1, 2], [0, 0]])", "a row of zeros"),
    ("Landscape.slice(BOWL, at, directions=[[0, 0], [1, 0]])", "a row of zeros"),
    ("Landscape.slice(BOWL, at, directions=[[0.1, 0.3], [-1, -3]])", "one line"),
    ("Landscape.slice(BOWL, at, directions=[np.nan, 1])", "must hold finite numbers, got NaN"),
    ("Landscape.slice(BOWL, at, directions=np.ones((3, 2)))", "must have shape"),
    ("Landscape.slice(BOWL, at, directions=[[1, 0, 0]])", "must have shape"),
    ("Landscape.slice(LINE, [2.0], n_dims=2)", "n_dims must be 1 if"),
    ("Ratio([1.0], [1.0, 2.0], ['saddle'])", "losses, ratios and kinds must have shape"),
    ("Ratio([1], [1], ['saddle'], quantity='x')", "quantity must be one of"),
    ("Ratio([1], [1], ['saddle'], quantity='inertia')", "ratios of an inertia must have shape"),
    ("fc.SpectrumDisplay.from_operator(ob.hessian(t), k=1.5)", "k must be an int >= 0.*got 1.5"),
    ("fc.SpectrumDisplay.from_operator(ob.hessian(t), k=-1)", "k must be an int >= 0.*got -1"),
    ("Convergence.from_results({}, x='y')", "x must be .*got 'y'"),
    ("Convergence({'a': ([1], [1, 2])})", "curve 'a' must have x and y"),
    ("Convergence({'mine': [3.0, 2.0, 1.0]})", "'mine' must be two arrays, .*got a list"),
    ("Convergence({'mine': 3.0})", r"must be two arrays.* \(range\(len\(loss"),
    ("Convergence([3.0, 2.0])", "curves must be a dict.*got a list"),
    ("Convergence.from_results([RUN, RUN])", "results must be .*got a list"),
    ("Convergence.from_results(BARE)", "OptimizeResult without"),
    ("Convergence.from_results({'a': EMPTY})", "'a' must be a result of fastcurv.minimize, got an"),
    ("Convergence.from_results({'a': RUN}, y='validation')", r"'a' must .* callback=EarlyStopping"),
    ("fc.plots.mark(fc.plots.new_axes(), 0, 0, 'Sattel')", "kind must be one of.*got 'Sattel'"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_displays_reject_invalid_arguments(call, words, net):
    names = {"Landscape": fc.LandscapeDisplay, "Convergence": fc.ConvergenceDisplay}
    names |= {"Ratio": fc.MinimumRatioDisplay, "ob": net[0], "t": net[1], "at": [3.0, 4.0]}
    with pytest.raises((TypeError, ValueError), match=words):
        eval(call, globals() | names)
    assert list(fc.ConvergenceDisplay.from_results(RUN).curves) == ["loss"]


def test_pyplot_shows_a_plot_that_was_made_before_it_was_imported(python):
    python(
        "import sys, threading, fastcurv as fc\n"
        "fc.SpectrumDisplay; assert 'matplotlib' not in sys.modules\n"
        "import matplotlib; matplotlib.use('agg')\n"
        "shown = fc.ConvergenceDisplay({'a': ([1], [1])})\n"
        "thread = threading.Thread(target=shown.plot); thread.start(); thread.join()\n"
        "assert 'matplotlib.pyplot' not in sys.modules and shown.figure_.axes\n"
        "shown.plot()\n"
        "import matplotlib.pyplot as plt\n"
        "assert plt.get_fignums() == [1] and shown.figure_ is plt.gcf()\n"
    )


@pytest.fixture(scope="module")
def fitted():
    """Return (pipeline, X, y): a pipeline that ends with a fitted classifier, its samples and their
    labels.
    """
    pytest.importorskip("sklearn")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X = np.random.default_rng(0).normal(5.0, 3.0, (60, 3))
    y = np.where(X.sum(axis=1) > 15, "high", "low")
    pipeline = make_pipeline(StandardScaler(), fc.MLPClassifier((4,), alpha=0.1, random_state=0))
    return pipeline.fit(X, y), X, y


def test_displays_from_an_estimator_use_its_training_objective(fitted):
    pipeline, X, y = fitted
    est, inner = pipeline[-1], pipeline[:-1].transform(X)
    ob = est.objective(inner, y)
    assert ob.value(est.theta_) == pytest.approx(est.loss_, rel=1e-12)
    exact = fc.eigvalsh(ob.hessian(est.theta_))
    from types import SimpleNamespace

    search = SimpleNamespace(best_estimator_=pipeline)
    for estimator, rows in ((pipeline, X), (est, inner), (search, X)):
        shown = fc.SpectrumDisplay.from_estimator(estimator, rows, y, k=1, n_steps=10, rng=0)
        assert np.allclose(shown.eigenvalues, exact[[0, -1]], atol=1e-8)
        slices = fc.LandscapeDisplay.from_estimator(estimator, rows, y, n_grid=5, rng=0)
        assert slices.losses[2] == ob.value(est.theta_)
    ax = shown.figure_.add_subplot()
    shown = fc.ConvergenceDisplay.from_estimator(pipeline, ax=ax)
    (name, (x, losses)), *rest = shown.curves.items()
    assert shown.ax_ is ax and not rest and name == "MLPClassifier, auto"
    assert losses.tolist() == est.loss_curve_ and x[-1] == len(losses) - 1


def test_convergence_of_an_estimator_shows_its_validation_curve(fitted):
    _, X, y = fitted
    est = fc.MLPClassifier((4,), solver="adam", early_stopping=True, max_iter=5, random_state=0)
    shown = fc.ConvergenceDisplay.from_estimator(est.fit(X, y), name="mine")
    assert list(shown.curves) == ["mine", "mine: validation"]


def test_from_estimator_rejects_unfitted_and_foreign_estimators(fitted):
    from sklearn.neural_network import MLPClassifier

    _, X, y = fitted
    with pytest.raises(ValueError, match="must be fitted"):
        fc.SpectrumDisplay.from_estimator(fc.MLPClassifier((2,)), X, y)
    with pytest.raises(TypeError, match="from_sklearn"):
        fc.LandscapeDisplay.from_estimator(MLPClassifier(), X, y)
    with pytest.raises(TypeError, match="ndarray"):
        fc.ConvergenceDisplay.from_estimator(X)


def test_the_plot_of_a_definite_spectrum_ends_at_0_and_has_a_title():
    for sign in (1, -1):
        shown = fc.SpectrumDisplay(
            density_of_matrix_eigenvalues(sign * np.abs(VALUES), np.dtype(float))
        ).plot()
        x = sign * shown.ax_.lines[0].get_xdata()
        assert x.min() >= 0 and "22 zero within rounding" in shown.ax_.get_title()
    both = fc.SpectrumDisplay(
        density_of_matrix_eigenvalues(VALUES, np.dtype(float)), eigenvalues=VALUES
    ).plot()
    assert both.ax_.lines[0].get_xdata().min() < -1
    names = both.ax_.get_legend_handles_labels()[1]
    assert names[1:] == [f"{n} {sign} eigenvalues" for n, sign in
                         ((16, "negative"), (22, "zero"), (60, "positive"))]  # fmt: skip

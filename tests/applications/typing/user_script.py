"""A script that uses every public name, checked with ``mypy --strict`` by `make lint` and run by
`test_user_script`.

An error of the type checker is an error in the annotations of the library.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.certify import rounding_bound

Floats = npt.NDArray[np.float64]


def halves(z: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    r = z - y
    return 0.5 * (r * r).sum(axis=1), r, np.ones_like(r)


def arctan(z: Floats) -> tuple[Floats, Floats, Floats]:
    w = 1 / (1 + z * z)
    return np.arctan(z), w, -2 * z * w * w


def a_problem() -> tuple[fc.Objective, Floats]:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 3)), rng.integers(0, 2, 40)
    model = fc.MLP([3, 4, 2], activation="tanh", bias=True, dtype="float64")
    objective = fc.Objective(model, X, y, loss="cross_entropy", l2=1e-2, n_threads=1)
    theta: Floats = model.init(rng=0, scheme="auto")
    layers = model.unflatten(theta)
    assert np.array_equal(model.flatten(layers), theta)
    logits: Floats = model.predict(theta, X)
    assert logits.shape == (40, 2) and model.n_params == objective.n_params
    own = fc.Objective(model, X, X[:, :2], loss=fc.Loss(halves, lower_bound=0.0))
    high = fc.Objective(model, X, X[:, :2], loss=fc.Loss.quantile(0.9, width=0.1))
    phi = fc.Activation(arctan)
    both = fc.MLP([3, 4, 2], phi), fc.MLP([3, 4, 4, 2], [phi, "relu"])
    assert both[0].activation == (phi,) and both[1] != model
    counts = fc.Objective(model, X, abs(X[:, :2]), loss="poisson")
    assert all(ob.value(theta) > 0 for ob in (own, high, counts))
    return objective, theta


def products(objective: fc.Objective, theta: Floats) -> LinearOperator[Any]:
    value: float = objective.value(theta)
    gradient: Floats = objective.gradient(theta)
    f, g = objective.value_and_gradient(theta)
    assert f == value and np.array_equal(g, gradient)
    H = objective.hessian(theta)
    v = np.ones(H.shape[0])
    out = np.empty_like(v)
    H.product(v, out)
    assert np.allclose(H @ v, out) and np.allclose(objective.hessp(theta, v), out)
    dense: Floats = H.to_dense()
    form: float = H.quadratic_form(v)
    assert np.isclose(v @ dense @ v, form)
    spent: int = H.n_products
    bound: float | None = rounding_bound(H, v)
    assert spent and bound and H.layout["threads"] and H.nbytes
    block = H.restrict(layers=[0])
    others = [objective.ggn(theta), objective.empirical_fisher(theta), block, H.shift(1.0)]
    assert all(A.shape[0] <= len(theta) for A in others) and objective.jacobian(theta).shape
    small = objective.batch(np.arange(10))
    assert small.n_samples == 10 and objective.value(theta) == value
    return H


def spectrum(H: LinearOperator[Any]) -> None:
    pairs = fc.eigsh(H, k=3, which="LM", tol=1e-6, rng=0)
    w, V = fc.eigsh(np.diag([1.0, 2.0, 5.0]), 2, "LA")
    least: float = float(pairs.residuals.max())
    assert w.shape == (2,) and V.shape == (3, 2) and pairs.converged.all() and least < 1
    values: Floats = fc.eigvalsh(H)
    n_positive, n_negative, n_zero = fc.inertia(H)
    assert n_positive + n_negative + n_zero == len(values)
    density = fc.spectral_density(H, n_probes=2, n_steps=10, rng=np.random.default_rng(0))
    peak: float = float(density.density.max())
    estimate = fc.trace(H, n_probes=60, rng=0)
    total: float = float(estimate)
    diagonal = fc.diagonal(H, n_probes=60, rng=0).estimate
    size = float(fc.frobenius_norm(H, n_probes=60, rng=0))
    assert peak > 0 and np.isclose(total, values.sum()) and np.isclose(np.sum(diagonal), total)
    assert size > 0


def verdicts(objective: fc.Objective, theta: Floats) -> Floats:
    found = fc.minimize(objective, theta, "trust-region", max_iter=200, rng=0)
    x: Floats = found.x
    at_the_end = found.report  # type checkers infer a verdict or None
    assert at_the_end is not None and at_the_end.certified and found.fun < 2.0 and found.nit > 0
    losses: Floats = found.history["loss"]
    assert found.kind == "minimum" and losses[-1] <= losses[0] and found.message.endswith(".")
    report = fc.classify(objective, x, rng=0)
    words: str = report.reason
    proved: bool = report.certified
    assert report.kind == "minimum" and proved and words and report.gradient_norm >= 0
    causes: list[str] = [cause.cure for cause in fc.diagnose(objective, x, found.history).causes]
    assert all(causes)
    walked = fc.find_critical_point(objective, theta, max_iter=5)
    assert np.isfinite(walked.fun) and walked.gradient_norm >= 0.0
    toy = fc.Objective(fc.MLP([1, 1, 1], "identity", bias=False), [[1.0]], [1.0], loss="mse")
    down = fc.escape(toy, np.zeros(2))
    assert bool(down.success) and down.curvature < 0.0
    return x


def steps(objective: fc.Objective, theta: Floats, x: Floats) -> None:
    H, g = objective.hessian(theta), objective.gradient(theta)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fc.IndefiniteHessianWarning)
        newton: Floats = fc.newton_step(H, g, damping=1e-2)
    saddle_free: Floats = fc.saddle_free_newton_step(H, g, damping=1e-2)
    assert newton.shape == saddle_free.shape == g.shape
    trained = fc.minimize(
        objective,
        theta,
        "sgd",
        learning_rate=lambda t: 0.1 / t**0.7,
        batch_size=8,
        max_iter=2,
        rng=0,
    )
    assert len(trained.history["loss"]) > 1
    from scipy.optimize import minimize

    interfaces: list[Any] = [fc.scipy.newton_cg, fc.scipy.trust_region, fc.scipy.saddle_free_newton]
    for method in interfaces:
        found = minimize(
            objective.value, x, jac=objective.gradient, hessp=objective.hessp, method=method
        )
        assert np.isfinite(found.fun)


def streams(objective: fc.Objective, theta: Floats) -> None:
    streamed = fc.StreamedObjective(objective.model, objective.X, objective.y, block_rows=16)
    value: float = streamed.value(theta)
    assert np.isfinite(value) and streamed.block_rows == 16 and streamed.hessian(theta).shape


def symmetries(objective: fc.Objective, theta: Floats) -> None:
    model = objective.model
    swapped = fc.structure.permute_hidden(model, theta, 0, [1, 0, 2, 3])
    assert np.allclose(fc.structure.nearest_copy(model, theta, swapped), theta)
    low, high = fc.spectrum.Tracker(objective, rng=0)(theta).values
    assert low < high
    flipped = fc.structure.flip_tanh(model, theta, 0, [0])
    assert np.isclose(objective.value(swapped), objective.value(flipped))
    relu = fc.MLP([3, 4, 2], activation="relu")
    assert fc.structure.rescale_relu(relu, relu.init(rng=0), 0, 1, 2.0).shape == (relu.n_params,)


def files(model: fc.MLP, theta: Floats, folder: Path) -> None:
    fc.save(folder / "net.safetensors", model, theta)
    again, theta_again = fc.load(folder / "net.safetensors")
    assert again == model and np.array_equal(theta_again, theta)
    linear = fc.MLP([1, 1, 1], "identity", bias=False)
    toy = fc.Objective(linear, np.ones((1, 1)), np.ones(1), loss="mse")
    fc.save_certificate(folder / "point.json", toy, [0.0, 0.0], fc.classify(toy, [0.0, 0.0]))
    rows = np.ones((3, model.sizes[0]))
    slopes: Floats = model.input_jacobian(theta, rows)
    bends: Floats = model.input_hessian(theta, rows, weights=slopes[0, :, 0])
    outputs, same_slopes, _ = model.input_derivatives(theta, rows)
    assert outputs.shape == slopes.shape[:2] and bends.shape[0] == 3
    assert np.allclose(slopes, same_slopes)


def converters(model: fc.MLP, theta: Floats, onnx_file: Path) -> None:
    """Convert a model to torch and back, and from an ONNX file, which requires torch and onnx."""
    module = fc.to_torch(model, theta)
    for back, parameters in (fc.from_torch(module), fc.from_onnx(onnx_file)):
        assert back.n_params == len(parameters)


def estimators(X: Floats, y: npt.NDArray[np.int64]) -> None:
    classifier = fc.MLPClassifier((4,), max_iter=20, random_state=0).fit(X, y)
    regressor = fc.MLPRegressor((4,), max_iter=20, random_state=0).fit(X, X[:, 0])
    labels = classifier.predict(X)
    assert labels.shape == y.shape and regressor.predict(X).shape == (len(X),)
    page = fc.report(regressor, X, X[:, 0], target="height")
    assert page.to_dict()["kind"] and page.to_html().startswith("<!doctype html>")
    model, theta = fc.from_sklearn(classifier)
    assert model.n_params == len(theta)


def rows(objective: fc.Objective, x: Floats) -> None:
    out = fc.leave_one_out(objective, x)
    assert out.output_changes(objective.X[:2]).shape[0] == 2
    factor = objective.hessian(x).factor()
    assert factor.solve(x).shape == x.shape and repr(out)
    post = fc.laplace(objective, x)
    assert post.in_domain(objective.X).all()
    assert fc.next_rows(objective, x, objective.X, 1).variance.shape == (2,)
    assert np.isfinite(post.log_evidence) and post.predict_proba(objective.X[:2]).shape[0] == 2


def pictures(objective: fc.Objective, x: Floats) -> None:
    H = objective.hessian(x)
    fc.SpectrumDisplay.from_operator(H, k=2, n_probes=2, n_steps=5, rng=0).plot()
    fc.LandscapeDisplay.from_objective(objective, x, n_grid=3, rng=0).plot()
    assert len(fc.sample_critical_points(objective, 2, max_iter=10, rng=0)) <= 2


def main() -> None:
    objective, theta = a_problem()
    spectrum(products(objective, theta))
    x = verdicts(objective, theta)
    steps(objective, theta, x)
    rows(objective, x)
    symmetries(objective, theta)
    streams(objective, theta)
    with TemporaryDirectory() as folder:
        files(objective.model, x, Path(folder))
    warnings.simplefilter("ignore")  # for estimators that stop early
    estimators(objective.X, objective.y)
    pictures(objective, x)
    kernels = fc.show_versions("dict")["kernels"]
    assert kernels and fc.show_versions("dict")["numpy"] and fc.__version__
    fc.register_threadpoolctl()


if __name__ == "__main__":
    main()

"""A multilayer perceptron in plain NumPy: slow and short, implemented independently of the engine,
and usable without a compiler.

`ReferenceModel` and `ReferenceObjective` follow the conventions of `MLP` and `Objective` (order of
the parameters, losses, `l2`, `sample_weight`), so functions that take a network objective accept a
`ReferenceObjective`. Hessian products are complex-step derivatives of the gradient, exact up to
rounding. They serve as an oracle for the engine and as the basis of `fastcurv.testing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..certify.certificates import Certificates
from ..common.checks import SelfAdjointOperator, as_rng, check_choice, check_vector
from ..common.protocols import Floats, library_class
from ..common.read_only import ReadOnlyMixin
from ..structure.parameters import (
    batch_norm_params,
    forward,
    has_skip_connection,
    l2_diagonal,
    layers_of,
    n_terms_per_row,
)
from ..structure.tables import (
    ACTIVATIONS,
    DEFAULT_LOSS_BY_TARGETS,
    PRODUCT_COMPLEX_STEP,
    activation_spec,
    batch_normalise,
    check_loss,
    loss_spec,
    one_hot,
)
from ..structure.user_functions import Activation


class ReferenceModel(ReadOnlyMixin):
    """A stack of linear layers with activations between them, whose parameters are one flat float64
    vector.

    The arguments are those of `MLP`. If `batch_norm` is True, hidden layers are normalised over the
    rows of X, and their parameters are W, b, gamma, beta.

    Examples
    --------
    >>> model = ReferenceModel([2, 3, 1])
    >>> model.n_params
    13
    >>> [W.shape for W, b in model.unflatten(np.zeros(13))]
    [(3, 2), (1, 3)]
    """

    dtype = np.dtype(np.float64)
    sizes: tuple[int, ...]
    activation: tuple[Any, ...]
    bias: bool
    residual: bool
    skips: tuple[bool, ...]
    batch_norm: bool
    n_params: int
    _read_only = frozenset(
        ["dtype", "sizes", "activation", "bias", "residual", "skips", "batch_norm", "n_params"]
    )

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str | Activation | Sequence[str | Activation] = "tanh",
        bias: bool = True,
        residual: bool = False,
        batch_norm: bool = False,
    ) -> None:
        self.sizes = tuple(int(s) for s in sizes)
        n_hidden = len(self.sizes) - 2
        names: tuple[Any, ...]
        if isinstance(activation, (str, Activation)):
            names = (activation,) * n_hidden
        else:
            names = tuple(activation)
        if n_hidden < 0 or min(self.sizes) < 1 or len(names) != n_hidden:
            raise ValueError(
                "sizes must hold at least two widths >= 1, and activation be one or one per "
                f"hidden layer, got {self.sizes} and {activation!r}."
            )
        self.activation = tuple(
            name
            if isinstance(name, Activation)
            else check_choice(name, tuple(ACTIVATIONS), "activation")
            for name in names
        )
        self.bias = bool(bias)
        self.residual = bool(residual)
        widths = zip(self.sizes[:-2], self.sizes[1:-1])
        self.skips = tuple(self.residual and k == m for k, m in widths)
        self.batch_norm = bool(batch_norm)
        n_params = sum(m * k + m * self.bias for k, m in zip(self.sizes, self.sizes[1:]))
        self.n_params = n_params + 2 * sum(self.sizes[1:-1]) * self.batch_norm

    def unflatten(self, theta: NDArray[Any]) -> list[Any]:
        """Return ``[(W, b), ...]`` as views of `theta`, where b is None if the model has no biases.
        With `batch_norm` the layers are ``(W, b, gamma, beta)``, except for the last one.
        """
        norms = batch_norm_params(self, theta)
        return [(W, b, *(pair or ())) for (W, b), pair in zip(layers_of(self, theta), norms)]

    def flatten(self, layers: Any) -> NDArray[Any]:
        """Return the flat vector of ``[(W, b), ...]``, the inverse of `unflatten`."""
        return np.concatenate(
            [np.ravel(part) for pair in layers for part in pair if part is not None]
        )

    def init(self, seed: int | np.random.Generator | None = None) -> Floats:
        """Return random parameters as a flat vector: normal weights of variance 1/fan-in, zero
        biases, gamma 1 and beta 0.
        """
        rng = as_rng(seed)
        norms = [(np.ones(m), np.zeros(m)) if self.batch_norm else () for m in self.sizes[1:-1]] + [
            ()
        ]
        return self.flatten(
            [
                (rng.standard_normal((m, k)) / k**0.5, np.zeros(m) if self.bias else None, *norm)
                for k, m, norm in zip(self.sizes, self.sizes[1:], norms)
            ]
        )

    def forward(
        self, theta: NDArray[Any], X: Floats
    ) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """Return two lists with an array for each layer: the argument of the activation (``z``, or
        ``gamma h + beta`` with batch normalisation), and the input ``a``.
        """

        def activate(l: int, z: NDArray[Any], a: NDArray[Any]) -> NDArray[Any]:
            return np.asarray(
                activation_spec(self.activation[l]).phi(z)
                + (a if has_skip_connection(self, l) else 0)
            )

        below, zs = forward(self.unflatten(theta), X, activate)
        return zs, below

    def preactivations(self, theta: NDArray[Any], X: Floats) -> list[NDArray[Any]]:
        """Return the arguments of the activations of all layers, as the first list of `forward`."""
        return self.forward(theta, X)[0]

    def predict(self, theta: NDArray[Any], X: Floats) -> NDArray[Any]:
        """Return the outputs (N, d_out) before any softmax or sigmoid."""
        return self.forward(theta, X)[0][-1]

    def backward(
        self,
        theta: NDArray[Any],
        zs: list[NDArray[Any]],
        below: list[NDArray[Any]],
        delta: NDArray[Any],
    ) -> NDArray[Any]:
        """Return the gradient (n,) with respect to theta of ``sum(delta * outputs)``, for fixed
        `delta` and the results `zs` and `below` of `forward`.
        """
        layers = self.unflatten(theta)
        grads = []
        skip: Any = 0
        e = delta  # e = dL/da of the current layer from the second iteration on
        for layer in reversed(range(len(layers))):
            if layer < len(self.activation):
                phi_prime = activation_spec(self.activation[layer]).slope
                skip = e if has_skip_connection(self, layer) else 0
                delta = e * phi_prime(zs[layer])
            norm: tuple[Any, ...] = ()
            if len(layers[layer]) == 4:
                h, s = batch_normalise(below[layer] @ layers[layer][0].T)
                norm = ((delta * h).sum(axis=0), delta.sum(axis=0))
                delta = (
                    s
                    * layers[layer][2]
                    * (delta - delta.mean(axis=0) - h * (delta * h).mean(axis=0))
                )
            grads.append((delta.T @ below[layer], delta.sum(axis=0) if self.bias else None, *norm))
            e = delta @ layers[layer][0] + skip
        return self.flatten(grads[::-1])


@library_class
class ReferenceObjective(ReadOnlyMixin):
    """The loss of a `ReferenceModel` on data, with exact gradient and Hessian products. The
    conventions are those of `Objective`.

    Parameters
    ----------
    model : ReferenceModel
        The network.
    X : array_like, shape (N, d_in)
        The rows of inputs.
    y : array_like, shape (N, d_out), or (N,) for one output or for integer classes
        The targets.
    loss : str or Loss
        A loss of `Objective`.
    l2 : float
        Penalty ``l2/2 ||theta||^2``, or only that of the matrices W if `l2_biases` is False.
    sample_weight : array_like, shape (N,), optional
        Weights of the samples.

    Examples
    --------
    The toy objective of the lectures, ``(1 - w2 w1)^2``:

    >>> toy = ReferenceObjective(ReferenceModel([1, 1, 1], "identity", bias=False), [[1.0]], [1.0])
    >>> H = toy.hessian([0.0, 0.0])
    >>> [float(H.quadratic_form(np.array(v))) for v in ([1.0, 1.0], [1.0, -1.0])]
    [-4.0, 4.0]
    """

    dtype = np.dtype(np.float64)
    model: ReferenceModel
    loss: Any
    l2: float
    l2_biases: bool
    X: Floats
    y: Floats
    sample_weight: Floats | None
    n_params: int
    n_samples: int
    _read_only = frozenset(
        [
            "dtype",
            "model",
            "loss",
            "l2",
            "l2_biases",
            "X",
            "y",
            "sample_weight",
            "n_params",
            "n_samples",
        ]
    )

    def __init__(
        self,
        model: ReferenceModel,
        X: ArrayLike,
        y: ArrayLike,
        loss: str = DEFAULT_LOSS_BY_TARGETS["numbers"],
        *,
        l2: float = 0.0,
        l2_biases: bool = True,
        sample_weight: ArrayLike | None = None,
    ) -> None:
        self.model = model
        self.loss = check_loss(loss)
        self.l2 = float(l2)
        self.l2_biases = l2_biases
        self.X = np.array(X, dtype=float)
        targets = np.asarray(y)
        N = len(self.X)
        d_out = model.sizes[-1]
        row = loss_spec(self.loss)
        if row.targets == "classes":
            targets = one_hot(targets, d_out)
        self.y = targets.reshape(N, -1).astype(float)
        width = row.given.target_width(d_out) if row.given else d_out
        if self.X.shape != (N, model.sizes[0]) or width not in (None, self.y.shape[1]):
            raise ValueError(
                f"X and y must have shapes ({N}, {model.sizes[0]}) and ({N}, {width}), got "
                f"{self.X.shape} and {self.y.shape}."
            )
        self.sample_weight = (
            None
            if sample_weight is None
            else np.array(check_vector(sample_weight, N, "sample_weight"))
        )
        self.n_params = model.n_params
        self.n_samples = N

    @property
    def certificates(self) -> Certificates:
        """Proved bounds on the loss and its derivatives near a given theta."""
        return Certificates(self)

    def _scale(self) -> Floats:
        """Return the factor of each sample's loss in the objective, shape (N, 1)."""
        N = len(self.y)
        w = np.ones(N) if self.sample_weight is None else self.sample_weight
        return np.asarray((w / (N * n_terms_per_row(self)))[:, None])

    def value_and_gradient(self, theta: ArrayLike) -> tuple[Any, NDArray[Any]]:
        """Return the loss and the gradient (n,) at theta, which may be complex."""
        theta = np.asarray(theta)
        zs, below = self.model.forward(theta, self.X)
        terms, delta = loss_spec(self.loss).terms(zs[-1], self.y)
        l2 = l2_diagonal(self)
        scale = self._scale()
        # A term that overflows, times 0, would be NaN.
        terms, delta = (np.where(scale == 0, 0, scale * part) for part in (terms, delta))
        value = terms.sum() + 0.5 * (theta @ (l2 * theta))
        return value, self.model.backward(theta, zs, below, delta) + l2 * theta

    def value(self, theta: ArrayLike) -> float:
        """Return the loss at theta (n,)."""
        return float(self.value_and_gradient(check_vector(theta, self.n_params, "theta", float))[0])

    def gradient(self, theta: ArrayLike) -> Floats:
        """Return the gradient (n,) at theta (n,)."""
        return self.value_and_gradient(check_vector(theta, self.n_params, "theta", float))[1]

    def hessian(self, theta: ArrayLike) -> ReferenceHessian:
        """Return the Hessian at theta (n,) as an operator."""
        return ReferenceHessian(self, check_vector(theta, self.n_params, "theta", float).copy())


@library_class
class ReferenceHessian(SelfAdjointOperator, ReadOnlyMixin):
    """The Hessian as an operator whose products are complex steps, ``H v = Im gradient(theta + i h
    v) / h``. There is no cancellation, since no difference is computed.
    """

    objective: ReferenceObjective
    theta: Floats
    value: Any
    gradient: Any
    n_products: int
    _read_only = frozenset(("dtype", "shape", "ndim", "objective", "theta", "value", "gradient"))

    def __init__(self, objective: ReferenceObjective, theta: Floats) -> None:
        super().__init__(float, (theta.size, theta.size))
        self.objective = objective
        self.theta = theta
        self.n_products = 0
        self.value, self.gradient = objective.value_and_gradient(theta)

    def _matvec(self, v: Floats) -> Floats:
        v = np.asarray(v, dtype=float).reshape(-1)
        size = np.abs(v).max(initial=0.0)
        self.n_products += 1
        if not 0 < size < np.inf:
            return 0 * v
        step = PRODUCT_COMPLEX_STEP / size
        return np.asarray(
            self.objective.value_and_gradient(self.theta + 1j * step * v)[1].imag / step
        )

    def quadratic_form(self, V: Floats) -> Any:
        """Return ``v'Hv`` for V (n,), or an array (k,) with this number for every column of V (n,
        k).
        """
        return (V * (self @ V)).sum(axis=0)

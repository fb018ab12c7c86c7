"""Conversion of other libraries' networks to a model and its flat theta. A stack is read layer by
layer; a layer without a counterpart in `MLP` raises an error that names it.

The outputs of the model are those of the source before a final softmax or sigmoid, which belongs to
the loss in fastcurv.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ... import _engine
from ...common.checks import as_numpy, check_array
from ...common.errors import type_phrase, warn_caller
from ...network.mlp import MLP, Model
from ...structure.tables import ACTIVATIONS, loss_spec
from .activations import ACTIVATIONS_IN_LIBRARY

SUPPORTED_STEPS_TEXT = (
    f"linear layers, {', '.join(ACTIVATIONS)}, flatten, dropout and batch normalisation"
)


def loss_ratio(loss: Any, d_out: int) -> float:
    """Return the ratio of scikit-learn's loss to that of an objective with `d_out` outputs: 1/2 for
    squared errors, and otherwise the number of terms of a row, over which scikit-learn sums.
    """
    spec = loss_spec(loss)
    return 0.5 if spec.link == "identity" else spec.terms_of_row(d_out)


def out_activation(loss: Any) -> str:
    """Return the attribute ``out_activation_`` of scikit-learn's estimators with this loss."""
    spec = loss_spec(loss)
    if spec.given is not None:
        return "exp" if spec.given.exponential else "identity"
    return {"softmax": "softmax", "sigmoid": "logistic"}.get(spec.link, "identity")


def unsupported_layer(what: str, wanted: str = SUPPORTED_STEPS_TEXT) -> ValueError:
    """Return the error for a layer that has no counterpart in `MLP`. `what` describes the layer,
    and `wanted` the supported ones.
    """
    return ValueError(f"{what} has no counterpart in fastcurv. Use a stack of {wanted}.")


def raise_if_unsupported(when: Any, what: str, wanted: str = SUPPORTED_STEPS_TEXT) -> None:
    """Raise the error of `unsupported_layer` if `when` is True."""
    if when:
        raise unsupported_layer(what, wanted)


class LayerStack:
    """A stack of layers under construction: linear maps, scalings and shifts of features between
    them, activations, and skip connections around hidden layers.

    Parameters
    ----------
    room : float
        The maximum number of parameters, for files that are not trusted. Arrays that are decoded or
        multiplied during reading may take 64 bytes for each of these parameters.
    """

    def __init__(self, room: float = math.inf) -> None:
        self.room = room
        self.left = 64 * room + 2**20
        self.saved: int | None = None  # index of the layer whose input a later `end_skip` adds
        self.forked = ""  # name of the module at which the skip connection starts, for messages
        self.skips: set[int] = set()
        self.takes: int | None = None  # number of inputs, or None if it is unknown
        self.column = ""  # name of the step that turned rows of shape (N, 1) into (N,)
        self.layers: list[tuple[np.ndarray, np.ndarray | None]] = []
        self.names: list[str] = []
        self.norms: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.activations: list[Any] = []
        self.pending: tuple[np.ndarray, np.ndarray] | None = None
        self.last = "nothing"
        self.closed = ""
        # name of the final softmax or sigmoid, or "" if no warning about its omission is needed
        self.left_out = ""
        self.dtypes: list[np.dtype[Any]] = []
        self.given: Any = None  # dtype of the parameters in torch

    def _check_can_extend(
        self, name: str, fits: bool = True, why: str = " that does not follow a linear layer"
    ) -> None:
        """Raise a ValueError if the layer `name` follows a softmax, or if `fits` is False, in which
        case `why` completes the message.
        """
        raise_if_unsupported(
            self.closed or not fits,
            f"{name} after {self.closed}" if self.closed else f"{name}{why}",
        )

    def reserve_memory(self, n_bytes: float) -> None:
        """Add `n_bytes` to the memory used during reading. Raise a ValueError if the sum exceeds 64
        bytes for each allowed parameter, plus 1 MiB.
        """
        self.left -= n_bytes
        if self.left < 0:
            raise ValueError(
                "the arrays of the model must not take far more memory than its file. Pass "
                "max_params, the number of parameters that the model may have, if this is intended."
            )

    @property
    def width(self) -> int | None:
        """The length of a row after the last linear layer. Without a linear layer, the length of an
        input row, or None if it is unknown.
        """
        return len(self.layers[-1][0]) if self.layers else self.takes

    def is_identity_reshape(
        self, shape: Sequence[Any], name: str, width: int | None = None
    ) -> bool:
        """Return True if a reshape of an array (N, width) to `shape`, in which 0 denotes N, leaves
        all rows unchanged or converts (N, 1) to (N,). `width` is by default that of the last layer.
        """
        width = self.width if width is None else width
        if shape == [-1]:
            self.column = name
            return bool(self.layers) and width == 1
        return shape in ([0, -1], [0, width], [-1, width])

    def add_linear(self, W: Any, b: Any, name: str) -> None:
        """Add a linear layer ``z = a W' + b`` with W of shape ``(out, in)`` and b ``(out,)``, or
        None for a layer without a bias. Raise ValueError if the layer does not fit.
        """
        self._check_can_extend(name)
        self.room -= math.prod(np.shape(W)) + math.prod(np.shape(b)) * (b is not None)
        if self.room < 0:
            raise ValueError(
                f"{name} must not have more parameters than the file has bytes. Pass max_params, "
                "the number of parameters that the model may have, if this is intended."
            )
        W = self._check_array(W, f"the weight of {name}", 2)
        b = None if b is None else self._check_array(b, f"the bias of {name}", 1)
        if b is not None and b.shape != (len(W),):
            raise ValueError(f"the bias of {name} must have shape ({len(W)},), got {b.shape}.")
        if self.width not in (None, W.shape[1]):
            before = f"outputs of {self.names[-1]}" if self.layers else "features of the rows"
            raise ValueError(
                f"{name} must take {self.width} inputs, the {before}, got {W.shape[1]}."
            )
        if self.pending is not None:
            scale, shift = self.pending
            if scale.size not in (1, W.shape[1]):
                raise ValueError(
                    f"the scaling before {name} must have {W.shape[1]} features, as many as "
                    f"{name} takes, got {scale.size}."
                )
            b = W @ np.broadcast_to(shift, W.shape[1]) + (0 if b is None else b)
            W = W * scale
            self.pending = None
        if self.last == "linear":
            self.activations.append("identity")
        self.layers.append((W, b))
        self.names.append(name)
        self.last = "linear"

    def add_affine(self, scale: Any, shift: Any, name: str, like: Any = None) -> None:
        """Add ``scale a + shift``, feature by feature. The map is merged into the linear map before
        or after. `like` is an array with the dtype of the source.
        """
        self._check_can_extend(name)
        scale, shift = np.broadcast_arrays(
            *(self._check_array(x, f"a number of {name}", None).reshape(-1) for x in (scale, shift))
        )
        if like is not None:
            self.dtypes[-2:] = [np.asarray(like).dtype]
        width = self.width if self.layers else None
        if self.pending is not None and width is None and self.pending[0].size > 1:
            width = self.pending[0].size
        if width is not None and scale.size not in (1, width):
            raise ValueError(f"{name} must have {width} features, got {scale.size}.")
        done = len(self.layers)
        if self.last == "linear" and done - 1 not in self.norms and self.saved != done:
            W, b = self.layers[-1]
            b = np.broadcast_to(scale * (0 if b is None else b) + shift, len(W))
            if np.any(scale != 1):
                self.reserve_memory(W.nbytes)
                W = np.broadcast_to(scale, len(W))[:, None] * W
            self.reserve_memory(b.nbytes)
            self.layers[-1] = W, b
        elif self.pending is None:
            self.pending = scale, shift
        else:
            before, moved = self.pending
            self.reserve_memory(scale.nbytes + before.nbytes)
            self.pending = scale * before, scale * moved + shift

    def add_frozen_batch_norm(self, parts: Sequence[Any], eps: float, name: str) -> None:
        """Add batch normalisation with fixed moments, as an affine map. `parts` are gamma, beta,
        mean and variance.
        """
        gamma, beta, mean, variance = (np.asarray(x, np.float64) for x in parts)
        scale = gamma / np.sqrt(variance + eps)
        self.add_affine(scale, beta - scale * mean, name, parts[0])

    def add_batch_norm(self, gamma: Any, beta: Any, eps: float, name: str) -> None:
        """Add batch normalisation over the rows of a batch (training mode), which must follow a
        linear map.
        """
        done = len(self.layers)
        fits = self.last == "linear" and done - 1 not in self.norms and self.saved != done
        why = " that does not follow a linear layer, while training"
        self._check_can_extend(name, fits and self.pending is None, why)
        if eps != _engine.BATCH_NORM_EPS:
            raise ValueError(f"{name} must have eps={_engine.BATCH_NORM_EPS}, got eps={eps}.")
        m = (len(self.layers[-1][0]),)
        parts = [self._check_array(x, f"a number of {name}", 1) for x in (gamma, beta)]
        if any(part.shape != m for part in parts):
            shapes = " and ".join(str(part.shape) for part in parts)
            raise ValueError(
                f"the scale and shift of {name} must have shape ({m[0]},), got {shapes}."
            )
        self.norms[done - 1] = parts[0], parts[1]

    def add_foreign_activation(
        self, library: str, kind: str, settings: Mapping[str, Any], name: str
    ) -> None:
        """Add an activation by its name and settings in another library. Raise a ValueError if the
        settings define a different function from fastcurv's activation.
        """
        phi, wanted = ACTIVATIONS_IN_LIBRARY[library][kind]
        for key, value in wanted.items():
            given = settings.get(key, value)
            near = float(np.float32(value)) if isinstance(value, (int, float)) else value
            if given not in (value, near):
                raise ValueError(
                    f"{name} must have {key}={value!r}, got {key}={given!r}, which has no "
                    "counterpart in fastcurv."
                )
        self.add_activation(phi, name)

    def add_activation(self, phi: str, name: str) -> None:
        """Add the activation `phi`, a name in fastcurv, for every unit."""
        if phi == "identity":
            return
        self._check_can_extend(name, self.saved != len(self.layers), f" after {self.forked}")
        self._check_can_extend(name, self.last == "linear" and self.pending is None)
        self.activations.append(phi)
        self.names[-1] += f" and {name}"
        self.last = "activation"

    def begin_skip(self, name: str) -> None:
        """Mark the current output as the input of a skip connection, to which a later `end_skip`
        refers.
        """
        why = ", whose input is not the output of the layer before,"
        self._check_can_extend(name, self.saved is None and self.pending is None, why)
        self.saved = len(self.layers)
        self.forked = name

    def end_skip(self, name: str) -> None:
        """End a skip connection: add the output marked by `begin_skip` to that of the hidden layer
        after it.
        """
        l = len(self.layers) - 1
        fits = self.saved == l and self.last in ("linear", "activation") and self.pending is None
        self._check_can_extend(
            name, fits, " that is not the input of one hidden layer added to its output"
        )
        m, k = self.layers[l][0].shape
        self._check_can_extend(name, m == k, f" of {k} numbers to {m}")
        if self.last == "linear":
            self.activations.append("identity")
        self.saved = None
        self.last = "skip"
        self.skips.add(l)
        self.names[-1] += f" and {name}"

    def add_softmax(self, name: str, said: bool = True) -> None:
        """Add a final softmax, after which no layer may follow. `said` is False for a log-softmax,
        about which `warn_about_omitted_activation` does not warn, because a second one does not
        change a cross entropy.
        """
        self._check_can_extend(
            name, self.last == "linear" and self.saved is None and self.pending is None
        )
        self.closed = name
        self.left_out = name if said else ""

    def _check_array(self, x: Any, name: str, ndim: int | None) -> np.ndarray:
        array = as_numpy(x, name)
        if ndim is not None and array.ndim != ndim:
            raise ValueError(f"{name} must have {ndim} axes, got shape {array.shape}.")
        self.dtypes.append(array.dtype)
        return check_array(array, name, np.float64)

    def build_model(self, dtype: Any = None) -> Model:
        """Return the model and theta of the stack, in `dtype`, by default that of the source. Raise
        ValueError if the stack has no counterpart in `MLP`.
        """
        if not self.layers:
            raise ValueError("the source must have at least one linear layer, got 0.")
        if self.last == "activation" and self.activations[-1] == "sigmoid":
            self.activations.pop()
            self.last = "linear"
            self.left_out = self.names[-1].split(" and ")[-1]
        raise_if_unsupported(
            self.last != "linear" or self.pending is not None or self.saved is not None,
            f"the end, {self.names[-1]},",
            f"{SUPPORTED_STEPS_TEXT}, a linear layer last",
        )
        if dtype is None:
            single = all(d.itemsize <= 4 for d in self.dtypes)
            dtype = np.float32 if single else np.float64
        hidden = range(len(self.layers) - 1)
        without = [b is None for _, b in self.layers]
        raise_if_unsupported(
            self.norms and set(self.norms) != set(hidden),
            "batch normalisation of some layers and not of others, while training",
        )
        equal = {l for l in hidden if len(set(self.layers[l][0].shape)) == 1}
        raise_if_unsupported(
            self.skips and self.skips != equal,
            "a skip around some hidden layers and not around others as wide,",
        )
        biased = not all(without)
        for l, none in enumerate(without):
            if none and biased and l not in self.norms:
                # The names of the steps that follow the layer are omitted.
                name = self.names[l].split(" and ")[0]
                raise ValueError(
                    f"all linear layers must have a bias, or none, got {name} without one and "
                    "others with one."
                )
        sizes = [self.layers[0][0].shape[1]] + [len(W) for W, _ in self.layers]
        model = MLP(sizes, self.activations, biased, bool(self.skips), dtype, bool(self.norms))
        layers = [
            (W, np.zeros(len(W)) if b is None and biased else b, *self.norms.get(l, ()))
            for l, (W, b) in enumerate(self.layers)
        ]
        return model, model.flatten(layers)


def warn_about_omitted_activation(stack: LayerStack) -> None:
    """Warn if the source ends with a softmax or sigmoid, which the model does not have."""
    if stack.left_out:
        warn_caller(
            f"{stack.left_out} at the end is left out, because the loss 'cross_entropy' or "
            "'binary_cross_entropy' applies it. The loss differs from the source's if the source "
            "was trained by a loss that applies it again, such as torch's CrossEntropyLoss.",
            UserWarning,
        )


def check_activation(model: MLP, activation: Any) -> None:
    """Raise a ValueError if an activation given by the caller differs from the network's own."""
    if activation is not None and MLP(model.sizes, activation).activation != model.activation:
        raise ValueError(
            f"activation must be None or {list(model.activation)}, as in the model's layers, got "
            f"{activation!r}."
        )


def model_from_layers(
    layers: Sequence[tuple[Any, Any]], activation: Any, names: Sequence[str]
) -> Model:
    """Return the model and theta from ``(W, b)`` pairs and the `activation` of the hidden layers,
    one name or one for each, or None if there are no hidden layers. `names` are the names of the
    layers in messages.
    """
    stack = LayerStack()
    hidden = len(layers) - 1
    said: Any = "identity" if activation is None else activation
    phis = MLP([1] * (hidden + 2), said).activation  # raises an error for unknown activations
    for l, ((W, b), name) in enumerate(zip(layers, names)):
        stack.add_linear(W, b, name)
        if l < hidden:
            stack.add_activation(phis[l], phis[l])
    if hidden > 0 and activation is None:
        raise ValueError(
            "activation must be that of the hidden layers, which weights do not determine, got "
            f"None. Use one of {', '.join(ACTIVATIONS)}, or a list of them."
        )
    return stack.build_model()


# Key: an attribute of an estimator that holds an MLP. Value: the sentence that says how to get it.
PARTS_OF_ESTIMATORS = {
    "steps": " Use from_sklearn(pipe[-1]) with X = pipe[:-1].transform(X).",
    "regressor": " Use from_sklearn(est.regressor_), whose outputs are transformed targets.",
    "param_distributions": " Use from_sklearn(search.best_estimator_).",
    "param_grid": " Use from_sklearn(search.best_estimator_).",
}


def from_sklearn(est: Any) -> Model:
    """Return the model and theta of a fitted ``sklearn.neural_network`` classifier or regressor.

    For a classifier, ``Objective(model, X, y, loss, l2=alpha / N, l2_biases=False)`` has the
    estimator's ``loss_`` as its value. For a regressor (``loss="mse"``, ``l2=2 * alpha / N``) the
    value is twice ``loss_``. For a regressor with ``loss="poisson"``, the objective with that loss
    and ``l2=alpha / N`` has the value ``loss_``. For m labels, or for m outputs with ``poisson``,
    scikit-learn adds the losses of which the objective takes the mean: the value is ``loss_ / m``,
    with ``l2=alpha / (N * m)``.

    Parameters
    ----------
    est : MLPClassifier or MLPRegressor
        A fitted estimator of scikit-learn or of this library. Scalers around it are not read: for
        a pipeline pass ``pipe[-1]``, whose rows are ``pipe[:-1].transform(X)``.

    Returns
    -------
    model : MLP
        The network, without the output activation.
    theta : ndarray (n,)
        The parameters. ``model.predict(theta, X)`` returns the outputs before the softmax or
        logistic function.

    Raises
    ------
    ValueError
        If the estimator is not fitted.
    TypeError
        For other estimators, pipelines and searches.

    See Also
    --------
    MLPClassifier, MLPRegressor : The same estimators on this engine.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> from sklearn.neural_network import MLPRegressor
    >>> X = np.random.default_rng(0).standard_normal((30, 2))
    >>> est = MLPRegressor(hidden_layer_sizes=(3,), solver="lbfgs", random_state=0).fit(X, X[:, 0])
    >>> model, theta = fc.from_sklearn(est)
    >>> bool(np.allclose(model.predict(theta, X)[:, 0], est.predict(X)))
    True
    """
    if not hasattr(est, "get_params") or not hasattr(type(est), "partial_fit"):
        cures = [cure for attribute, cure in PARTS_OF_ESTIMATORS.items() if hasattr(est, attribute)]
        raise TypeError(
            "est must be an MLPClassifier or MLPRegressor of scikit-learn, "
            f"got {type_phrase(est)}.{''.join(cures)}"
        )
    if not hasattr(est, "coefs_"):
        raise ValueError(f"est must be a fitted MLP, got {type_phrase(est)} without coefs_.")
    for part in ("_forward_pass_fast", "_forward_pass"):
        own = getattr(type(est), part, None)
        raise_if_unsupported(
            not str(getattr(own, "__module__", "sklearn.")).startswith("sklearn."),
            f"est, {type_phrase(est)} with a forward pass of its own,",
        )
    phi = _estimator_activation(est)
    phi_out = getattr(est, "out_activation_", "identity")
    known = "identity", "logistic", "softmax", "exp"
    raise_if_unsupported(phi_out not in known, f"the output activation {phi_out!r}")
    layers = [(W.T, b) for W, b in zip(est.coefs_, est.intercepts_)]
    return model_from_layers(layers, phi, [f"coefs_[{l}]" for l in range(len(layers))])


def _estimator_activation(est: Any) -> Any:
    """Return the activation of a fitted estimator: for an estimator of this library the activation
    of the fit, even if the parameter was changed since, and for one of scikit-learn the current
    parameter, which its predictions use.
    """
    if isinstance(getattr(est, "model_", None), MLP):
        return est.model_.activation
    name = est.activation
    known = ACTIVATIONS_IN_LIBRARY["sklearn"]
    raise_if_unsupported(
        not isinstance(name, str) or name not in known,
        f"the activation {name!r}",
        f"one of {', '.join(known)}",
    )
    return known[name][0]

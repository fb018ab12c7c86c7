"""The network: its sizes and activations, and the layout of its parameters in one flat vector."""

from __future__ import annotations

import itertools
import math
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import _engine
from ..common.checks import (
    as_numpy,
    as_rng,
    check_array,
    check_bool,
    check_choice,
    check_vector,
    check_vectors,
    is_iterable,
    is_list_of_layers,
    rows_shape_error,
    short_repr,
)
from ..common.errors import type_phrase
from ..common.protocols import Array, Scheme, Seed
from ..common.read_only import ReadOnlyMixin
from ..structure.parameters import batch_norm_params, forward, layers_of, residual_branch_scale
from ..structure.tables import LOSSES, Layered, activation_spec
from .arguments import check_activation, check_dtype, check_sizes, match_array_type
from .input_derivatives import InputDerivatives, input_derivatives

INIT_SCHEMES = ("auto", "he", "xavier", "lecun")
MAX_PREDICT_STATE_BYTES = 1 << 26  # maximum bytes of the state of a chunk of rows in `predict`


class MLP(ReadOnlyMixin):
    """A multilayer perceptron of the given widths, with a linear last layer.

    Parameters
    ----------
    sizes : sequence of int
        At least two layer widths: those of the input, of each hidden layer, and of the output.
    activation : str, Activation, or a sequence of them
        A name, one of ``identity relu leaky_relu tanh sigmoid softplus silu gelu elu``, or a
        user-defined `Activation`. One is used for all hidden layers, a sequence has one for each.
    bias : bool
        If True, each layer has a bias.
    residual : bool
        If True, a hidden layer's input is added to its output wherever the two have equal widths.
    dtype : {"float64", "float32"}
        Precision of the parameters and of all arithmetic.
    batch_norm : bool
        Normalise each hidden layer between its linear part and its activation, as torch's
        ``BatchNorm1d`` in training mode does [1]_: ``gamma (z - mean) / sqrt(variance + 1e-5) +
        beta``, with the mean and biased variance over all rows of the data. The parameters of such
        a layer are W, b, gamma, beta.

    Attributes
    ----------
    sizes, activation : tuple
    n_params : int
        Length of ``theta``: ``W1, b1, W2, b2, ...``, each row-major, ``W_l`` of shape ``(out,
        in)``; with batch normalisation ``W1, b1, gamma1, beta1, ...``.

    Raises
    ------
    ValueError, TypeError
        For sizes below 1, unknown activations, other dtypes.

    See Also
    --------
    Objective : The loss of such a network on data.

    Notes
    -----
    With batch normalisation every output depends on every row, and b has no effect, so derivatives
    with respect to b are exactly 0.

    References
    ----------
    .. [1] Ioffe and Szegedy, Batch Normalization, ICML 2015.

    Examples
    --------
    >>> import fastcurv as fc
    >>> model = fc.MLP([2, 3, 1], activation="tanh")
    >>> model.n_params
    13
    >>> theta = model.init(rng=0)
    >>> [W.shape for W, b in model.unflatten(theta)]
    [(3, 2), (1, 3)]
    >>> model.named_parts(theta)["0.weight"].shape, model.normalised(0)
    ((3, 2), False)
    >>> [z.shape for z in model.preactivations(theta, [[1.0, 2.0]])]
    [(1, 3), (1, 1)]
    >>> model.check_theta(list(theta)).shape, model.check_rows([[1, 2]]).dtype
    ((13,), dtype('float64'))
    """

    sizes: tuple[int, ...]
    activation: tuple[Any, ...]
    bias: bool
    residual: bool
    dtype: np.dtype[Any]
    batch_norm: bool
    shapes: tuple[tuple[int, int], ...]
    starts: tuple[int, ...]
    n_params: int
    _read_only = frozenset(
        [
            "sizes",
            "activation",
            "bias",
            "residual",
            "dtype",
            "batch_norm",
            "shapes",
            "starts",
            "n_params",
        ]
    )

    def __init__(
        self,
        sizes: Any,
        activation: Layered = "tanh",
        bias: bool = True,
        residual: bool = False,
        dtype: DTypeLike = "float64",
        batch_norm: bool = False,
    ) -> None:
        self.sizes = check_sizes(sizes)
        self.activation = check_activation(activation, len(self.sizes) - 2)
        self.bias = check_bool(bias, "bias")
        self.residual = check_bool(residual, "residual")
        self.dtype = check_dtype(dtype)
        self.batch_norm = check_bool(batch_norm, "batch_norm")
        self.shapes = tuple(zip(self.sizes[1:], self.sizes[:-1]))
        lengths = (sum(map(math.prod, self._parts(l))) for l in range(len(self.shapes)))
        self.starts = (0, *itertools.accumulate(lengths))
        self.n_params = self.starts[-1]
        if self.n_params * 8 >= 2**62:
            raise ValueError(
                f"sizes must give fewer parameters than memory can hold, got {self.sizes} with "
                f"{self.n_params} parameters."
            )

    def __repr__(self) -> str:
        hidden = self.activation[0] if len(set(self.activation)) == 1 else list(self.activation)
        return (
            f"MLP({list(self.sizes)}, activation={hidden!r}, bias={self.bias}, "
            f"residual={self.residual}, "
            f"dtype={self.dtype.name!r}{', batch_norm=True' if self.batch_norm else ''})"
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, MLP)
            and repr(self) == repr(other)
            and self.activation == other.activation
        )

    def __hash__(self) -> int:
        return hash(repr(self))

    @property
    def skips(self) -> tuple[bool, ...]:
        """For each hidden layer, True if its input is added to its output."""
        return tuple(self.residual and m == k for m, k in self.shapes[:-1])

    def normalised(self, layer: int) -> bool:
        """Return True if the layer has gamma and beta, that is if it is a hidden layer of a model
        with batch normalisation.
        """
        count = len(self.shapes)
        return self.batch_norm and range(count)[layer] < count - 1

    def _parts(self, layer: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of a layer's parameters: those of W, of b if the model has biases, and
        of gamma and beta if the layer is normalised.
        """
        m, k = self.shapes[layer]
        return ((m, k),) + ((m,),) * (self.bias + 2 * self.normalised(layer))

    def init(self, rng: Seed = None, scheme: Scheme = "auto") -> np.ndarray:
        """Return random parameters: normal weights of variance ``gain / fan``, zero biases and
        beta, and gamma 1. Layers with a skip connection and an unbounded activation get weights
        ``1/L`` times as large, L the number of skip connections.

        Parameters
        ----------
        rng : None, int or numpy.random.Generator
            Seed or generator; the same integer gives bitwise the same parameters.
        scheme : {"auto", "he", "xavier", "lecun"}
            The variance: He [1]_, 2 / in; Xavier (Glorot) [2]_, 2 / (in + out); LeCun [3]_, 1 / in.
            ``auto`` uses He for layers followed by a relu-like activation and Xavier for the rest.

        Returns
        -------
        theta : ndarray (n_params,)
            The flat vector, in the order of `unflatten`.

        Notes
        -----
        Through L layers of relu, gelu, identity or another unbounded activation with skip
        connections, outputs grow by a factor that is exponential in the sum of the scales of the
        branches [4]_. With the scale ``1/L`` this sum is 1 at any depth. 20 relu layers of width 16
        then start at a loss of 3 instead of 3e8. Outputs of tanh and sigmoid are bounded and grow
        at most in proportion to L. The weights of such layers are not scaled, since deep tanh
        networks with scaled weights were measured to train more slowly by SGD. With batch
        normalisation, outputs do not depend on the scale, so no weights are scaled.

        References
        ----------
        .. [1] He et al., Delving Deep into Rectifiers, ICCV 2015.
        .. [2] Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
               networks, AISTATS 2010.
        .. [3] LeCun et al., Efficient BackProp, 1998.
        .. [4] Hanin and Rolnick, How to start training: the effect of initialization and
               architecture, NeurIPS 2018.
        """
        check_choice(scheme, INIT_SCHEMES, "scheme")
        rng = as_rng(rng)
        layers = []
        for l, ((m, k), phi) in enumerate(zip(self.shapes, self.activation + ("identity",))):
            kind = (
                scheme if scheme != "auto" else "he" if activation_spec(phi).like_relu else "xavier"
            )
            variance = {"he": 2 / k, "xavier": 2 / (k + m), "lecun": 1 / k}[kind]
            norm = (np.ones(m), np.zeros(m)) if self.normalised(l) else ()
            W = rng.standard_normal((m, k)) * (math.sqrt(variance) * residual_branch_scale(self, l))
            layers.append((W, np.zeros(m) if self.bias else None, *norm))
        return self.flatten(layers)

    def unflatten(self, theta: Any) -> list[tuple[Any, ...]]:
        """Return the parameters of each layer, as views into theta if theta has the model's dtype.

        Parameters
        ----------
        theta : array_like, shape (n_params,) or (n_params, k)
            The parameters, or k vectors as columns, such as eigenvectors.

        Returns
        -------
        list of tuple
            ``(W, b)`` for each layer, where ``b`` is None if the model has no biases. With batch
            normalisation hidden layers are ``(W, b, gamma, beta)``. For k columns each array has a
            leading axis of length k: ``(k, out, in)``. If theta is a torch tensor, so are the
            parts.
        """
        theta_given = theta
        theta = None if is_list_of_layers(theta) else as_numpy(theta, "theta")
        if theta is not None and theta.ndim == 2:
            theta = check_vectors(theta, self.n_params, "theta", self.dtype)
        else:
            theta = self.check_theta(theta_given)
        layers = zip(layers_of(self, theta.T), batch_norm_params(self, theta.T))
        return [
            tuple(
                None if part is None else match_array_type(theta_given, part)
                for part in (*layer, *norm)
            )
            for layer, norm in ((layer, norm or ()) for layer, norm in layers)
        ]

    def named_parts(self, theta: Array) -> dict[str, Any]:
        """Return the arrays of `unflatten` by the names of ``to_torch(model, theta).state_dict()``,
        such as ``"0.weight"``; the gamma of batch normalisation is a weight, and beta a bias. An
        eigenvector is read by ``model.named_parts(pairs.vector(i))``.

        Examples
        --------
        >>> model = MLP([2, 3, 1])
        >>> {name: part.shape for name, part in model.named_parts(model.init(rng=0)).items()}
        {'0.weight': (3, 2), '0.bias': (3,), '2.weight': (1, 3), '2.bias': (1,)}
        """
        parts = (part for layer in self.unflatten(theta) for part in layer if part is not None)
        return dict(zip(self._part_sizes(), parts))

    def _part_sizes(self) -> dict[str, int]:
        """Return the numbers of parameters by the names of `named_parts`, in the order of theta."""
        sizes: dict[str, int] = {}
        module = 0
        for l in range(len(self.shapes)):
            names = [f"{module}.weight"] + [f"{module}.bias"] * self.bias
            names += [f"{module + 1}.weight", f"{module + 1}.bias"] * self.normalised(l)
            sizes |= {name: math.prod(shape) for name, shape in zip(names, self._parts(l))}
            module += 2 + self.normalised(l)  # the activation is a module, too
        return sizes

    def flatten(self, layers: Any) -> np.ndarray:
        """Return the flat vector of the parameters of all layers, the inverse of `unflatten`.

        Parameters
        ----------
        layers : list of tuple
            ``[(W, b), ...]`` or, with batch normalisation, ``[(W, b, gamma, beta), ..., (W, b)]``.

        Returns
        -------
        ndarray, shape (n_params,)
            The parameters, in the dtype of the model.
        """
        if not is_iterable(layers):
            raise TypeError(
                f"layers must be a list with (W, b) for each layer, got {short_repr(layers)}."
            )
        layers = list(layers)
        if len(layers) != len(self.shapes):
            raise ValueError(
                f"layers must have {len(self.shapes)} entries, one (W, b) for each layer, got "
                f"{len(layers)}."
            )
        parts = []
        for l, layer in enumerate(layers):
            shapes: list[tuple[int, ...] | None] = list(self._parts(l))
            names = ("W", "b", "gamma", "beta")[: 4 if self.normalised(l) else 2]
            if not self.bias:
                shapes.insert(1, None)
            if not isinstance(layer, (tuple, list)):
                raise TypeError(
                    f"layers[{l}] must be a tuple ({', '.join(names)}), got {type_phrase(layer)}."
                )
            if len(layer) != len(names):
                raise ValueError(
                    f"layers[{l}] must have {len(names)} entries, ({', '.join(names)}), got "
                    f"{len(layer)}."
                )
            for name, part, shape in zip(names, layer, shapes):
                if shape is None:
                    if part is not None:
                        raise ValueError(
                            f"b of layers[{l}] must be None, since the model has no biases, got "
                            f"{type_phrase(part)}."
                        )
                    continue
                part = check_array(part, f"{name} of layers[{l}]", self.dtype)
                if part.shape != shape:
                    raise ValueError(
                        f"{name} of layers[{l}] must have shape {shape}, got {part.shape}."
                        + (
                            " Transpose it: (out, in)."
                            if part.shape == shape[::-1] != shape
                            else ""
                        )
                    )
                parts.append(part.ravel())
        return np.concatenate(parts)

    def predict(self, theta: Any, X: Any, statistics: Any = None) -> np.ndarray:
        """Return the outputs before any softmax or sigmoid (logits).

        Parameters
        ----------
        theta : array_like, shape (n_params,)
            The parameters.
        X : array_like, shape (N, sizes[0])
            Rows of inputs.
        statistics : optional
            With batch normalisation, the result of the method `statistics` for the training rows.
            The output of each row then depends on that row alone. By default, mean and variance are
            those of the rows of X, as in training.

        Returns
        -------
        ndarray, shape (N, sizes[-1])
            The outputs, in the dtype of the model.
        """
        X = self.check_rows(X)
        if statistics is not None:
            plain, theta = self.fold_batch_norm(theta, statistics)
            return plain.predict(theta, X)
        rows = _engine.Rows(X, np.zeros((len(X), self.sizes[-1]), self.dtype), None, None)
        one_row = MAX_PREDICT_STATE_BYTES + 64 * self.n_params * self.dtype.itemsize
        plan = _engine.Plan(
            self.sizes,
            self.activation,
            self.skips,
            self.bias,
            rows,
            # The choice of the loss has no effect, since only outputs are computed.
            next(iter(LOSSES)),
            1.0,
            0.0,
            _engine.default_n_threads(),
            one_row,
            batch_norm=self.batch_norm,
        )
        plan.bind(np.require(self.check_theta(theta), None, ["C", "A"]), False)
        out = np.empty((len(X), self.sizes[-1]), self.dtype)
        plan.write_outputs(out)
        return out

    def input_jacobian(self, theta: Any, X: Any, *, statistics: Any = None) -> np.ndarray:
        """Return the derivatives of the outputs with respect to the inputs, for each row.

        Parameters
        ----------
        theta : array_like, shape (n_params,)
            The parameters.
        X : array_like, shape (N, sizes[0])
            Rows of inputs.
        statistics : optional
            With batch normalisation, the result of the method `statistics` for the training rows.
            The derivatives are then those of `predict` with these statistics.

        Returns
        -------
        ndarray, shape (N, sizes[-1], sizes[0])
            Element ``[r, k, i]`` is the derivative of output k of row r, before any softmax or
            sigmoid, with respect to input i. At a kink of relu or leaky_relu the derivative on the
            left is used.

        Raises
        ------
        ValueError
            If the model has batch normalisation and no statistics are given, if it has an
            activation of your own, or for other shapes.

        See Also
        --------
        input_derivatives : Outputs, Jacobian and Hessian in one pass.

        Notes
        -----
        Derivatives are propagated forward if the network has at most as many inputs as outputs, and
        backward otherwise: the cost is that of a forward pass for each input or each output,
        whichever are fewer. The numbers do not depend on the number of threads.

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> model = fc.MLP([2, 1])
        >>> model.input_jacobian([3.0, -2.0, 0.5], [[1.0, 1.0]])
        array([[[ 3., -2.]]])
        """
        return np.asarray(input_derivatives(self, theta, X, 1, None, statistics).jacobian)

    def input_hessian(
        self, theta: Any, X: Any, weights: Any = None, *, statistics: Any = None
    ) -> np.ndarray:
        """Return the second derivatives of the outputs with respect to the inputs, for each row.

        Parameters
        ----------
        theta : array_like, shape (n_params,)
            The parameters.
        X : array_like, shape (N, sizes[0])
            Rows of inputs.
        weights : array_like, shape (sizes[-1],) or (N, sizes[-1]), optional
            Weights of the outputs, the same for all rows or one vector for each row. If given, the
            Hessian of the weighted sum of the outputs is returned, which takes one backward pass
            instead of one for each output.
        statistics : optional
            As in `input_jacobian`.

        Returns
        -------
        ndarray, shape (N, sizes[-1], sizes[0], sizes[0]), or (N, sizes[0], sizes[0]) with weights
            The Hessians, exactly symmetric. The jump of phi' at a kink, as of relu, does not
            contribute, so a network of relu alone has a Hessian of 0.

        Raises
        ------
        ValueError
            As `input_jacobian`, and for weights of another shape.

        Notes
        -----
        With D_l the Jacobian of layer l's z and e_l the derivatives with respect to its output, the
        Hessian is the sum over hidden layers of ``D_l' diag(e_l phi''(z_l)) D_l`` [1]_.

        References
        ----------
        .. [1] C. Bishop, Exact calculation of the Hessian matrix for the multilayer perceptron,
               Neural Computation 4, 1992.

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> model = fc.MLP([1, 1, 1], "tanh", bias=False)
        >>> H = model.input_hessian([1.0, 1.0], [[0.5]])
        >>> bool(np.isclose(H[0, 0, 0, 0], -2 * np.tanh(0.5) * (1 - np.tanh(0.5) ** 2)))
        True
        """
        return np.asarray(self.input_derivatives(theta, X, weights, statistics=statistics).hessian)

    def input_derivatives(
        self, theta: Any, X: Any, weights: Any = None, *, statistics: Any = None
    ) -> InputDerivatives:
        """Return the outputs and their first and second derivatives with respect to the inputs,
        computed in one pass.

        The arguments are those of `input_hessian`.

        Returns
        -------
        InputDerivatives
            A named tuple ``(outputs, jacobian, hessian)`` with the results of `predict`,
            `input_jacobian` and `input_hessian`.

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> model = fc.MLP([3, 5, 2])
        >>> z, J, H = model.input_derivatives(model.init(rng=0), np.ones((4, 3)))
        >>> z.shape, J.shape, H.shape
        ((4, 2), (4, 2, 3), (4, 2, 3, 3))
        """
        return input_derivatives(self, theta, X, 2, weights, statistics)

    @cached_property
    def _engine_layers(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[bool, ...]]:
        """Three tuples for the engine: the sizes, the engine's codes of the activations, which must
        be built in, and `skips`.
        """
        return self.sizes, tuple(_engine.ACTIVATIONS[name] for name in self.activation), self.skips

    def statistics(self, ob: Any, theta: Any) -> list[Any]:
        """Return the mean and biased variance of z over the rows of an objective, for each hidden
        layer, in the form that `predict` accepts.

        Parameters
        ----------
        ob : Objective
            An objective of this model on the training rows.
        theta : array_like (n_params,)
            The parameters.

        Returns
        -------
        list of (mean, variance), each (width,)
            Moments of ``z = a W' + b``, including b. torch's ``running_var`` is N / (N - 1) times
            the variance. The cost is a forward pass.

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> X = np.random.default_rng(0).standard_normal((30, 2))
        >>> model = fc.MLP([2, 3, 1], batch_norm=True)
        >>> ob, theta = fc.Objective(model, X, X[:, 0], loss="mse"), model.init(rng=0)
        >>> known = model.statistics(ob, theta)
        >>> bool(np.allclose(model.predict(theta, X[:1], known), model.predict(theta, X)[:1]))
        True
        """
        if getattr(ob, "model", None) != self:
            raise ValueError(f"ob must be an Objective of {self!r}, got {ob!r}.")
        if not self.batch_norm:
            raise ValueError(
                "the model must have batch normalisation for statistics, got batch_norm=False. Use "
                "MLP(..., batch_norm=True)."
            )
        with ob._lock:
            plan = ob._bind_plan(theta, False)
            biases = [
                0 if layer[1] is None else layer[1].astype(np.float64)
                for layer in self.unflatten(plan.theta)
            ]
            return [
                ((mean + b).astype(self.dtype), variance.astype(self.dtype))
                for (mean, variance), b in zip(_engine.batch_norm_statistics(plan), biases)
            ]

    def fold_batch_norm(self, theta: Any, statistics: Any) -> tuple[MLP, Any]:
        """Return a network without batch normalisation that computes the same function.

        With fixed statistics the normalisation is a linear map, which is merged into W and b of its
        layer.

        Parameters
        ----------
        theta : array_like, shape (n_params,)
            The parameters.
        statistics : list of (mean, variance) or None
            The result of the method `statistics` for the training rows; None only if the network
            has no batch normalisation.

        Returns
        -------
        model : MLP
            The network without batch normalisation, with biases in every layer, or this network if
            it has no batch normalisation.
        theta : ndarray, shape (model.n_params,)
            The parameters of the returned network. If it is this network, the argument theta.
        """
        if statistics is None:
            if self.batch_norm:
                raise ValueError(
                    "statistics must be given for a model with batch normalisation, got None. Pass "
                    "model.statistics(ob, theta) of the training rows."
                )
            return self, theta
        statistics = self._check_statistics(statistics)
        plain = MLP(self.sizes, self.activation, True, self.residual, self.dtype)
        layers = []
        for l, layer in enumerate(self.unflatten(theta)):
            W, b = (
                np.zeros(len(layer[0])) if part is None else part.astype(np.float64)
                for part in layer[:2]
            )
            if self.normalised(l):
                mean, variance = statistics[l]
                scale = layer[2] / np.sqrt(variance + _engine.BATCH_NORM_EPS)
                W = scale[:, None] * W
                b = scale * (b - mean) + layer[3]
            layers.append((W, b))
        return plain, plain.flatten(layers)

    def _check_statistics(self, statistics: Any) -> list[np.ndarray]:
        widths = self.sizes[1:-1]
        if not self.batch_norm:
            raise ValueError(
                "statistics must be None for a model without batch normalisation, got "
                f"{type_phrase(statistics)}."
            )
        if not is_iterable(statistics):
            raise TypeError(
                "statistics must be a list of (mean, variance) for each hidden layer, got "
                f"{type_phrase(statistics)}."
            )
        pairs = list(statistics)
        shapes = [np.shape(pair) for pair in pairs]
        if shapes != [(2, m) for m in widths]:
            raise ValueError(
                f"statistics must be (mean, variance) for each hidden layer, of widths {widths}, "
                f"got {len(pairs)} entries of shapes {shapes}."
            )
        moments = [check_array(pair, "statistics", np.float64) for pair in pairs]
        least = min((variance.min() for _, variance in moments), default=0.0)
        if least < 0:
            raise ValueError(f"statistics must hold variances >= 0, got {least:g}.")
        return moments

    def preactivations(self, theta: Array, X: Array) -> list[np.ndarray]:
        """Return the arguments of the activations of all hidden layers, and the outputs of the
        network.

        Parameters
        ----------
        theta : array_like, shape (n_params,)
            The parameters.
        X : array_like, shape (N, sizes[0])
            Rows of inputs.

        Returns
        -------
        list of ndarray
            ``[z_1, ..., z_L]``, each ``(N, width)``. With batch normalisation these are ``gamma h +
            beta``, where h is the layer's z normalised over the rows of X.
        """
        return self._forward(theta, self.check_rows(X))[1]

    def _forward(self, theta: Array, rows: Array) -> tuple[list[Array], list[Array]]:
        """Return two lists, the inputs of all layers and the `preactivations`, for checked rows."""

        def activate(l: int, z: Array, a: Array) -> Array:
            above = _engine.activate(self.activation[l], z)
            return above + a if self.skips[l] else above

        return forward(self.unflatten(self.check_theta(theta)), rows, activate)

    def astype(self, dtype: DTypeLike) -> MLP:
        """Return the same network in another precision. Parameters in the old precision remain
        usable, since theta is cast in each call.
        """
        other = copy(self)
        other.__dict__["dtype"] = check_dtype(dtype)
        return other

    def check_theta(self, theta: Any) -> np.ndarray:
        """Return theta, given as a vector or as a list of (W, b), as a vector (n_params,) in the
        model's dtype. Raise ValueError if theta has another length or is not finite.
        """
        if is_list_of_layers(theta):
            return self.flatten(theta)
        return check_vector(theta, self.n_params, "theta", self.dtype)

    def check_rows(self, X: Any, name: str = "X") -> np.ndarray:
        """Return X as an aligned matrix (N, sizes[0]), N >= 1, of the model's dtype. Raise an
        error, with `name` for X, for other shapes, and for NaN and infinity.
        """
        rows = check_array(X, name, self.dtype)
        if rows.ndim != 2 or rows.shape[1] != self.sizes[0] or not len(rows):
            raise rows_shape_error(rows.shape, self.sizes[0], name)
        if (
            any(stride % rows.itemsize for stride in rows.strides)
            or not rows.flags.aligned
            or not rows.dtype.isnative
        ):
            rows = np.array(rows, rows.dtype.newbyteorder("="))
        return rows


Model = tuple[MLP, np.ndarray]  # (network, theta)

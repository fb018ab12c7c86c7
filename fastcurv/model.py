"""The network: sizes, activations, and how its parameters lie in one flat vector."""

import math
import numbers

import numpy as np

from . import _engine
from .checks import as_rng, check_array, check_choice, check_vector

ACTIVATIONS = tuple(_engine.ACTIVATIONS)
RELU_LIKE = ("relu", "leaky_relu", "elu", "silu", "gelu", "softplus")
SCHEMES = ("auto", "he", "xavier", "lecun")
PREDICT_MEMORY = 1 << 26                     # bytes of state while predicting


class MLP:
    """A multilayer perceptron ``sizes[0] -> ... -> sizes[-1]``; the last layer is linear.

    Parameters
    ----------
    sizes : sequence of int
        Widths, input first: at least two numbers.
    activation : str or sequence of str
        One of ``identity relu leaky_relu tanh sigmoid softplus silu gelu elu`` for all hidden layers, or one for each.
    bias : bool
        Whether each layer has a bias.
    residual : bool
        Add a hidden layer's input to its output where the two are equally wide.
    dtype : {"float64", "float32"}
        Of parameters and of all arithmetic.

    Attributes
    ----------
    sizes, activation : tuple
    n_params : int
        Length of ``theta``: ``W1, b1, W2, b2, ...``, each row-major, ``W_l`` of shape ``(out, in)``.

    Raises
    ------
    ValueError, TypeError
        For sizes below 1, unknown activations, other dtypes.

    Examples
    --------
    >>> import fastcurv as fc
    >>> model = fc.MLP([2, 3, 1], activation="tanh")
    >>> model.n_params
    13
    >>> [W.shape for W, b in model.unflatten(model.init(seed=0))]
    [(3, 2), (1, 3)]
    """

    def __init__(self, sizes, activation="tanh", bias=True, residual=False, dtype="float64"):
        self.sizes = _check_sizes(sizes)
        self.activation = _check_activation(activation, len(self.sizes) - 2)
        self.bias, self.residual = _check_bool(bias, "bias"), _check_bool(residual, "residual")
        self.dtype = check_dtype(dtype)
        self.shapes = tuple(zip(self.sizes[1:], self.sizes[:-1]))
        self.n_params = sum(m * k + (m if self.bias else 0) for m, k in self.shapes)
        if self.n_params * 8 >= 2 ** 62:
            raise ValueError(f"sizes {self.sizes} make {self.n_params} parameters, more than memory can hold")

    def __repr__(self):
        hidden = self.activation[0] if len(set(self.activation)) == 1 else list(self.activation)
        return (f"MLP({list(self.sizes)}, activation={hidden!r}, bias={self.bias}, residual={self.residual}, "
                f"dtype={self.dtype.name!r})")

    def __eq__(self, other):
        return isinstance(other, MLP) and repr(self) == repr(other)

    def __hash__(self):
        return hash(repr(self))

    @property
    def skips(self):
        """For each hidden layer, whether its input is added to its output."""
        return tuple(self.residual and m == k for m, k in self.shapes[:-1])

    def init(self, seed=None, scheme="auto"):
        """Random parameters: normal weights of variance ``gain / fan``, zero biases.

        Parameters
        ----------
        seed : None, int or numpy.random.Generator
        scheme : {"auto", "he", "xavier", "lecun"}
            He [1]_: 2 / in; Xavier (Glorot) [2]_: 2 / (in + out); LeCun [3]_: 1 / in. ``auto``: He for a layer that feeds
            a relu-like activation, Xavier for the rest.

        Returns
        -------
        theta : ndarray (n_params,)

        References
        ----------
        .. [1] He et al., Delving Deep into Rectifiers, ICCV 2015.
        .. [2] Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010.
        .. [3] LeCun et al., Efficient BackProp, 1998.
        """
        check_choice(scheme, SCHEMES, "scheme")
        rng = as_rng(seed)
        layers = []
        for (m, k), phi in zip(self.shapes, self.activation + ("identity",)):
            kind = scheme if scheme != "auto" else "he" if phi in RELU_LIKE else "xavier"
            variance = {"he": 2 / k, "xavier": 2 / (k + m), "lecun": 1 / k}[kind]
            layers.append((rng.standard_normal((m, k)) * math.sqrt(variance), np.zeros(m) if self.bias else None))
        return self.flatten(layers)

    def unflatten(self, theta):
        """``[(W, b), ...]`` as views into theta, no copy; ``b`` is None without bias."""
        theta = self.check_theta(theta)
        layers, start = [], 0
        for m, k in self.shapes:
            W = theta[start:start + m * k].reshape(m, k)
            start += m * k
            b = None
            if self.bias:
                b = theta[start:start + m]
                start += m
            layers.append((W, b))
        return layers

    def flatten(self, layers):
        """The flat vector of ``[(W, b), ...]``: the inverse of `unflatten`."""
        try:
            layers = [(W, b) for W, b in layers]
        except (TypeError, ValueError):
            raise TypeError(f"layers is {layers!r:.60}; wanted a list of pairs (W, b), one for each layer") from None
        if len(layers) != len(self.shapes):
            raise ValueError(f"layers has {len(layers)} entries; wanted {len(self.shapes)}, one (W, b) for each layer")
        parts = []
        for l, ((W, b), (m, k)) in enumerate(zip(layers, self.shapes)):
            for name, part, shape in (("W", W, (m, k)), ("b", b, (m,) if self.bias else None)):
                if shape is None:
                    if part is not None:
                        raise ValueError(f"layers[{l}] has a bias; wanted None, the model has no biases")
                    continue
                part = check_array(part, f"{name} of layers[{l}]", self.dtype)
                if part.shape != shape:
                    raise ValueError(f"{name} of layers[{l}] has shape {part.shape}; wanted {shape}")
                parts.append(part.ravel())
        return np.concatenate(parts)

    def predict(self, theta, X):
        """The outputs ``(N, sizes[-1])`` before any softmax or sigmoid (logits)."""
        X = self.check_rows(X)
        rows = _engine.Rows(X, np.zeros((len(X), self.sizes[-1]), self.dtype), None, None)
        one_row = PREDICT_MEMORY + 64 * self.n_params * self.dtype.itemsize
        plan = _engine.Plan(self.sizes, self.activation, self.skips, self.bias, rows, "mse", 1.0, 0.0,
                            _engine.default_threads(), one_row)
        plan.bind(np.ascontiguousarray(self.check_theta(theta)), False)
        out = np.empty((len(X), self.sizes[-1]), self.dtype)
        plan.outputs(out)
        return out

    def preactivations(self, theta, X):
        """``[z_1, ..., z_L]``, each ``(N, width)``: what each layer's activation is given; the last one is the output."""
        a, zs = self.check_rows(X), []
        for l, (W, b) in enumerate(self.unflatten(theta)):
            z = a @ W.T
            if b is not None:
                z += b
            zs.append(z)
            if l < len(self.shapes) - 1:
                above = _engine.probe_activate(None, self.activation[l], z)[0]
                a = above + a if self.skips[l] else above
        return zs

    def check_theta(self, theta):
        """theta as a finite vector of the model's length and dtype."""
        return check_vector(theta, self.n_params, "theta", self.dtype)

    def check_rows(self, X, name="X"):
        """X as a finite matrix (N, sizes[0]) of the model's dtype, N >= 1, with strides that are whole numbers."""
        X = check_array(X, name, self.dtype)
        if X.ndim != 2 or X.shape[1] != self.sizes[0] or not len(X):
            raise ValueError(f"{name} has shape {X.shape}; wanted (N, {self.sizes[0]}) with N >= 1")
        if any(stride % X.itemsize for stride in X.strides) or not X.flags.aligned or not X.dtype.isnative:
            X = np.array(X, X.dtype.newbyteorder("="))
        return X


def _check_sizes(sizes):
    if isinstance(sizes, (str, bytes)) or not hasattr(sizes, "__iter__"):
        raise TypeError(f"sizes is {sizes!r}; wanted a sequence of widths such as [64, 32, 10]")
    sizes = list(sizes)
    if len(sizes) < 2:
        raise ValueError(f"sizes is {sizes}; wanted at least two widths, of the input and of the output")
    for width in sizes:
        if isinstance(width, bool) or not isinstance(width, numbers.Integral):
            raise TypeError(f"sizes holds {width!r}; wanted ints >= 1")
        if width < 1:
            raise ValueError(f"sizes holds {width}; wanted ints >= 1")
    return tuple(int(width) for width in sizes)


def _check_activation(activation, n_hidden):
    if isinstance(activation, str):
        activation = (activation,) * max(n_hidden, 1)
        names = activation[:n_hidden]
    elif hasattr(activation, "__iter__"):
        activation = names = tuple(activation)
        if len(names) != n_hidden:
            raise ValueError(f"activation has {len(names)} names; wanted one, or {n_hidden}, one for each hidden layer")
    else:
        raise TypeError(f"activation is a {type(activation).__name__}; wanted a name or one name for each hidden layer")
    for name in activation:
        check_choice(name, ACTIVATIONS, "activation")
    return tuple(names)


def _check_bool(x, name):
    if not isinstance(x, (bool, np.bool_)):
        raise TypeError(f"{name} is {x!r}; wanted True or False")
    return bool(x)


def check_dtype(dtype):
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (np.float32, np.float64):
        raise ValueError(f"dtype is {dtype!r}; wanted 'float64' or 'float32'")
    return np.dtype(found.type)

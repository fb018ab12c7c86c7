"""Krylov in sample space: the Hessian and the GGN in orthonormal coordinates of what their products
can reach, a smaller symmetric operator where rows are fewer than units.

Notation of the passes: a (N, in) goes into a layer, ``z = a W' + b`` (N, out), ``delta = dL/dz``;
V, vb are the layer's part of a vector, and r before a name is its derivative along it.

*The range.* A layer's part of every product ``H v`` is ``rdW = rdelta' a + delta' ra``: a sum of N
matrices of rank one from the left rows of a, and N from rows of delta. So it lies in the space of
``P' a + delta' Q``, P (N, out) and Q (N, in). H is symmetric: what is orthogonal to that space it
maps to 0 (plus l2), so nothing is lost by never leaving it. In the first layer ra is 0, and for the
GGN and the Fisher the second term is missing everywhere: there the space is that of ``P' a``.

*Coordinates.* Householder's QR gives orthogonal Q_a (in, in) and Q_d (out, out) whose first r =
min(N, in) and s = min(N, out) columns hold all rows of a and of delta:

    a = [L, 0] Q_a',   delta = [D, 0] Q_d',   L (N, r), D (N, s) lower triangular

In ``M = V Q_a`` the space is an L: all rows of the first r columns, and of the others only what
lies along Q_d1, the first s columns of Q_d. The coordinates are these two blocks,

    C1 = V Q_a1  (out, r)      C2 = Q_d1' V Q_a2  (s, in - r)      V = [C1, Q_d1 C2] Q_a'

``out r + s (in - r)`` numbers, an isometry onto a space that holds the range. No rank is decided:
rows of a or delta that are equal, or zero, only make some of these numbers useless, and everything
stays exact to rounding. b keeps its own numbers, so that l2 may spare it.

*Products.* With ``Q_a = I - Y T Y'`` (Y (in, r)) the passes need, in place of the products with V,

    a V'    = L C1'                                       2 N r out
    delta V = [delta C1, D C2] Q_a'                       2 N r out + 2 N s (in - r) + 4 N r in
    [G, F]  = ra Q_a                                      4 N r in
    C1      = rdelta' L + delta' G,    C2 = D' F          4 N r out + 2 N s (in - r)

about ``N^2 (8 out + 12 in)`` flops in all, where V as a matrix takes ``8 N in out``. Products with
W stay: ``4 N in out``. A layer is rotated where that is less work (`rotates`), and left as it is
where not, so the operator may be mixed.

*What is left out* has dimension ``(out - s) (in - r)`` in each rotated layer; there H is l2.

*Which space.* `prices` tells what a product and its share of a Krylov method's work on vectors cost
in both spaces; `Curvature.reduced` asks it, and whoever takes an operator of products asks that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._engine import Lock
from ..memo import kept_with
from ..protocols import Array
from ..runtime import to_nearest
from ..structure.parameters import layers_of
from .arguments import check_dtype
from .coordinates import InCoordinates
from .row_passes import RowState
from .sample_layers import Rotated, Scratch, Whole

# The cost model, in flops at the speed of the engine's matrix products:
VECTOR = 100.0  # a Krylov method's sweeps, for each number of a vector and each product
PACKING = 1.25  # matrices as they lie, against the engine's own products
LAYER = 4e6  # what a layer's calls cost in Python


def rotates(m: int, k: int, N: int, pairs: bool) -> bool:
    """Whether a layer ``(out, in) = (m, k)`` takes less work in coordinates, for N rows."""
    if k <= N or (pairs and m <= N):
        return False
    return layer_cost(m, k, N, pairs, True) < layer_cost(m, k, N, pairs, False)


def layer_size(m: int, k: int, N: int, pairs: bool, rotated: bool) -> int:
    """How many numbers stand for V."""
    r = min(k, N)
    return m * r + (min(m, N) * (k - r) if pairs else 0) if rotated else m * k


def layer_cost(m: int, k: int, N: int, pairs: bool, rotated: bool) -> float:
    """What a product with V costs in its layer, in flops; without the products with W."""
    r, s, size = min(k, N), min(m, N), layer_size(m, k, N, pairs, rotated)
    if not rotated:
        return (8.0 if pairs else 4.0) * N * m * k + VECTOR * size
    flops = 4.0 * N * r * m
    if pairs:
        flops += 4.0 * N * r * m + 8.0 * N * r * k + 4.0 * N * s * (k - r)
    return flops + VECTOR * size


def prices(model: Any, N: int, kind: str) -> tuple[float, float]:
    """What a product and its share of a Krylov method's work cost in sample space, and in parameter
    space, in flops.
    """
    there = here = 0.0
    for l, (m, k) in enumerate(model.shapes):
        pairs = kind == "hessian" and l > 0
        both = 4.0 * N * m * k if l else 0.0  # products with W, in either space
        there += both + layer_cost(m, k, N, pairs, False)
        rotated = rotates(m, k, N, pairs)
        here += PACKING * (both + layer_cost(m, k, N, pairs, rotated)) + LAYER
    return here, there


def _parts(whole: Any, rotate: Any = None, state: Any = None) -> tuple[RowState, list[Any]]:
    """State and layers; `rotate`: which layers are turned, by the cost model where it is None."""
    ob, layers, N = whole.objective, [], whole.objective.n_samples
    state = RowState(ob, whole.theta, whole._plan) if state is None else state
    for l, (m, k) in enumerate(ob.model.shapes):
        pairs = whole.kind == "hessian" and l > 0
        parts = state.a[l], state.delta[l], ob.model.bias
        rotated = rotates(m, k, N, pairs) if rotate is None else rotate[l]
        layers.append(Rotated(*parts, pairs) if rotated else Whole(*parts))
    return state, layers


_usual_parts = kept_with(_parts)


class SampleSpace(InCoordinates):
    """A `Curvature` in orthonormal coordinates of the space that its products reach.

    Made by ``H.reduced("samples")``; `eigsh` and its kin make it for themselves where it is
    worth while. An ordinary symmetric operator, of `shape` (m, m), m <= n: its eigenvalues are
    those of H but for `n_rest` copies of `rest`, and `embed` takes its eigenvectors to H's.

    Attributes
    ----------
    whole : Curvature
        The operator in parameter space.
    n : int
        Length of its vectors.
    rest : float
        The eigenvalue of H on the complement: l2, 0 for the Fisher.
    n_rest : int
        Its dimension, ``n - m``.
    space : str
        ``"samples"``.
    n_products : int
        Of this operator; those of `whole` are not counted here.

    Notes
    -----
    Products are the engine's, with the objective's `n_threads`, whose number changes no bit; the
    state, and the bases, are made with NumPy's and SciPy's BLAS. The state takes about
    ``(6 N + 3 min(N, width)) width`` numbers for each layer; W is read from theta and not copied.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> rng = np.random.default_rng(0)
    >>> model = fc.MLP([30, 25, 20, 3])
    >>> ob = fc.Objective(model, rng.standard_normal((4, 30)), rng.integers(3, size=4))
    >>> H = ob.hessian(model.init(seed=0))
    >>> R = H.reduced("samples")
    >>> R.shape, R.n_rest
    ((372, 372), 986)
    >>> x = rng.standard_normal(R.shape[0])
    >>> bool(np.allclose(R.embed(R @ x), H @ R.embed(x)))
    True
    """

    cuts: list[slice]
    n_rest: int
    _scratch: Scratch
    _lock: Any

    space = "samples"

    def __init__(self, whole: Any, rotate: Any = None, state: Any = None) -> None:
        self.whole, self.n = whole, whole.shape[0]
        self._hessian, self.n_products = whole.kind == "hessian", 0
        plain = rotate is None
        self.state, self.layers = _usual_parts(whole) if plain else _parts(whole, rotate, state)
        self._set_up(whole.dtype)

    def _set_up(self, dtype: Any) -> None:
        ends = np.cumsum([0] + [layer.size for layer in self.layers])
        self.cuts = [slice(int(a), int(b)) for a, b in zip(ends, ends[1:])]
        self.n_rest = sum(layer.rest for layer in self.layers)
        ob = self.whole.objective
        self._scratch, self._lock = Scratch(dtype, ob.n_threads), Lock()
        super().__init__(dtype, (int(ends[-1]), int(ends[-1])))

    def __reduce__(self) -> tuple[Any, ...]:
        return SampleSpace, (self.whole, [type(layer) is Rotated for layer in self.layers])

    # --- products

    @to_nearest
    def _multiply(self, x: Array, out: Array) -> None:
        s, M, at = self.state, self._scratch, (self.layers, self.cuts)
        with self._lock:
            ras, rzs = s.r_forward(*at, M, x)
            rdelta = np.asfortranarray(s.loss.curve(rzs[-1], self.whole.kind))
            s.r_backward(*at, M, out, rdelta=rdelta, along=(x, ras, rzs) if self._hessian else None)
        self._decay(x, out)

    def _decay(self, x: Array, out: Array) -> None:
        """Add what l2 does."""
        if not self.rest:
            return
        l2 = self.dtype.type(self.rest)
        if self.whole.objective.l2_biases:
            out += l2 * x
            return
        for cut, layer in zip(self.cuts, self.layers):
            end = cut.start + layer.weights
            out[cut.start : end] += l2 * x[cut.start : end]

    # --- to and from parameter space

    def _embed(self, x: Array, out: Array) -> None:
        views = layers_of(self.whole.objective.model, out)
        for layer, cut, (V, vb) in zip(self.layers, self.cuts, views):
            layer.embed(x[cut], V, vb)

    def _project(self, v: Array, out: Array) -> None:
        views = layers_of(self.whole.objective.model, v)
        for layer, cut, (V, vb) in zip(self.layers, self.cuts, views):
            layer.project(V, vb, out[cut])

    def outside(self, start: int, stop: int) -> Array:
        """Rows ``start .. stop - 1`` of an orthonormal basis ``(n_rest, n)`` of the complement:
        there H is `rest`.
        """
        out = np.zeros((stop - start, self.n), self.dtype)
        first, model = 0, self.whole.objective.model
        for l, layer in enumerate(self.layers):
            for j in range(max(start, first), min(stop, first + layer.rest)):
                x, y = layer.outside(j - first)
                np.multiply(x[:, None], y, out=layers_of(model, out[j - start])[l][0])
            first += layer.rest
        return out

    def astype(self, dtype: Any) -> Any:
        """The same coordinates in a lower precision; a float64 operator's alone."""
        dtype = check_dtype(dtype)
        if dtype == self.dtype:
            return self
        if dtype == np.float64:
            raise ValueError(
                "astype was asked for float64 of a float32 operator in sample space; wanted "
                "H.astype('float64').reduced('samples'): its coordinates are others"
            )
        return _Lowered(self, dtype)


class _Lowered(SampleSpace):
    """A `SampleSpace` with its numbers cast."""

    def __init__(self, high: SampleSpace, dtype: Any) -> None:
        self.whole, self.n, self._hessian = high.whole, high.n, high._hessian
        self.n_products, self.layers = 0, [layer.astype(dtype) for layer in high.layers]
        self.state = high.state.astype(dtype)
        self._high = high
        self._set_up(dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Lowered, (self._high, self.dtype)

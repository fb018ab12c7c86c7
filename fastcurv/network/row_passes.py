"""The passes of a network over all rows at once, in NumPy with the engine's matrix products: the
state at theta, and products with vectors, layer by layer. They serve sparse rows, whose first layer
`fastcurv.network.sparse` multiplies, and the state serves Gram matrices.

Matrices with a row for each sample are in Fortran order, so that the engine's products read W and
V without a copy. `multiply_rows` creates such a matrix. `M` is a `MatrixPool`: ``M(out, A, B,
add)`` computes ``out = [out +] A B``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from .. import _engine
from ..common.protocols import Array
from ..structure.parameters import forward
from ..structure.tables import activation_spec
from .output_loss import OutputLossDerivatives


class MatrixPool:
    """The engine's matrix products, and a workspace for the matrices of a pass. A pass that
    requests the same shapes as the last one gets the same memory, since the first access to new
    pages takes a seventh of the time of a product. Each pass starts with `begin_pass`. Only one
    thread may use the workspace at a time.
    """

    def __init__(self, dtype: Any, threads: int | None) -> None:
        self.dtype = np.dtype(dtype)
        self.multiply = _engine.MatrixMultiplier(dtype, threads or _engine.default_n_threads())
        self._kept: dict[tuple[int, int], list[Array]] = {}
        self._taken: dict[tuple[int, int], int] = {}

    def __call__(self, out: Array, A: Array, B: Array, add: bool = False) -> None:
        """Compute ``out = [out +] A B``."""
        self.multiply(out, A, B, add)

    def begin_pass(self) -> None:
        """Start a pass and make the memory of all earlier matrices available again."""
        self._taken.clear()

    def empty_matrix(self, N: int, width: int) -> Array:
        """Return an uninitialised matrix (N, width) in Fortran order."""
        shape = N, width
        matrices = self._kept.setdefault(shape, [])
        at = self._taken.get(shape, 0)
        if at == len(matrices):
            matrices.append(np.empty((width, N), self.dtype).T)
        self._taken[shape] = at + 1
        return matrices[at]


def multiply_rows(M: MatrixPool, A: Array, B: Array) -> Array:
    """Return ``A B`` (N, w) in Fortran order, in memory of the workspace M."""
    out = M.empty_matrix(A.shape[0], B.shape[1])
    M(out, A, B)
    return out


class LayerMap:
    """A layer's part (V, vb) of a vector: the entries of V, row-major, then those of vb."""

    def __init__(self, a: Any, delta: Array, bias: bool) -> None:
        self.out = delta.shape[1]
        self.width = a.shape[1]
        self.weights = self.out * self.width
        self.bias = bias
        self.size = self.weights + self.out * bias
        self.a = a
        self.delta = delta

    def forward(self, M: MatrixPool, x: Array) -> Array:
        """Return ``a V' + vb`` (N, out) for coordinates x."""
        rz = self._multiply_by_weights(M, x[: self.weights])
        if self.bias:
            rz += x[self.weights :]
        return rz

    def add_backward_term(self, M: MatrixPool, x: Array, out: Array) -> None:
        """Add ``delta V`` to `out` (N, in), for V with coordinates x."""
        M(out, self.delta, x[: self.weights].reshape(self.out, self.width), True)

    def gradient(self, M: MatrixPool, rdelta: Array, ra: Array | None, out: Array) -> None:
        """Write the coordinates of ``rdelta' a [+ delta' ra]`` and of ``rdelta.sum(axis=0)``."""
        self._write_gradient(M, rdelta, ra, out[: self.weights])
        if self.bias:
            rdelta.sum(axis=0, out=out[self.weights :])

    def _multiply_by_weights(self, M: MatrixPool, x: Array) -> Array:
        """Return ``a V'`` for V with coordinates x."""
        return multiply_rows(M, self.a, x.reshape(self.out, self.width).T)

    def _write_gradient(self, M: MatrixPool, rdelta: Array, ra: Array | None, out: Array) -> None:
        """Write the coordinates of ``rdelta' a [+ delta' ra]`` to `out`."""
        V = out.reshape(self.out, self.width)
        M(V, rdelta.T, self.a)
        if ra is not None:
            M(V, self.delta.T, ra, True)


class RowState:
    """State at theta for every sample: the input a and delta of each layer, and phi' and e phi'' of
    each hidden layer. Here e is the derivative of the loss with respect to the layer's output.

    Parameters
    ----------
    ob : Objective
        An objective of a model without batch normalisation.
    theta : ndarray (n,)
        The parameters; the matrices W are views into it.
    plan : Plan, optional
        The engine's plan at theta, for a state that is bitwise that of the engine's products.
        Rounding determines the slope at a kink, and delta near an exact fit.
    """

    def __init__(self, ob: Any, theta: Array, plan: Any = None, multiply: Any = None) -> None:
        model = ob.model
        self.dtype = model.dtype
        self.skips = model.skips
        self.W, self.b = zip(*model.unflatten(theta))
        self.a: list[Any] = [ob.X]
        self.p: list[Any] = []
        self.eq: list[Any] = []
        if plan is not None:
            self._copy_state(ob, plan.state())
            return

        def activate(l: int, z: Any, below: Any) -> Any:
            a, p, q, _ = activation_spec(model.activation[l]).derivatives(np.asarray(z, np.float64))
            self.p.append(self._to_fortran_order(p))
            self.eq.append(q)  # stores phi'', which is multiplied by e in the backward pass
            above = np.asarray(a, dtype=self.dtype)
            return self._to_fortran_order(above + below if self.skips[l] else above)

        self.a, zs = forward(zip(self.W, self.b), ob.X, activate)
        self.loss = OutputLossDerivatives(ob, np.asarray(zs[-1]))
        self.delta = [self._to_fortran_order(self.loss.delta)]
        e = None
        for l in range(len(self.W) - 1, 0, -1):
            delta, e = self.backpropagate(multiply, l, self.delta[0], e)
            self.delta.insert(0, delta)
            if self.eq[l - 1] is not None:
                self.eq[l - 1] = self._to_fortran_order(e * self.eq[l - 1])

    def _copy_state(self, ob: Any, state: Any) -> None:
        """Copy `state` from the engine's plan, and compute what the engine does not keep."""
        *hidden, (outputs, _, _, delta) = state
        self.loss = OutputLossDerivatives(ob, outputs)
        self.loss.delta = delta.astype(np.float64)
        self.delta = [self._to_fortran_order(one[3]) for one in state]
        for name, (a, p, eq, delta) in zip(ob.model.activation, hidden):
            row = activation_spec(name)
            if p is None and row.leak is not None:
                p = np.where(a > 0, 1.0, row.leak)
            if eq is None and row.of_a is not None:
                eq = (row.of_a - 2 * a) * delta
            self.a.append(self._to_fortran_order(a))
            self.p.append(self._to_fortran_order(p))
            self.eq.append(self._to_fortran_order(eq))

    def _to_fortran_order(self, x: Any) -> Any:
        """Return x in the model's dtype and in Fortran order, or None if x is None."""
        return None if x is None else np.asarray(x, dtype=self.dtype, order="F")

    def outputs(self) -> Array:
        """Return the network's outputs (N, d_out)."""
        z = np.asarray(self.a[-1] @ self.W[-1].T)
        return z if self.b[-1] is None else z + self.b[-1]

    def backpropagate(self, M: Any, l: int, D: Array, e: Array | None) -> tuple[Array, Array]:
        """Return ``D' = e' * phi'`` and ``e' = D W [+ e]``, the derivatives for the input of layer
        l >= 1, from those for its z and its output. D and e have N rows or, for several vectors, a
        multiple of N. M computes matrix products.
        """
        product = np.empty((self.W[l].shape[1], len(D)), D.dtype).T
        M(product, D, self.W[l])
        if e is not None and self.skips[l]:
            product += e
        p = self.p[l - 1]
        if p is None:
            return product, product
        return np.asfortranarray(product * np.tile(p, (len(D) // len(p), 1))), product


class RowPasses:
    """Passes along a vector over all samples, at the point of `state`, with the workspace M. Each
    of the `layers` has its slice of the vector in `cuts`.
    """

    state: RowState
    M: MatrixPool
    layers: list[Any]
    cuts: list[slice]

    def _set_layers(self, layers: list[Any]) -> None:
        ends = np.cumsum([0] + [layer.size for layer in layers]).tolist()
        self.layers = layers
        self.cuts = [slice(a, b) for a, b in pairwise(ends)]

    def _forward(self, x: Array) -> tuple[list[Any], list[Array]]:
        """Compute ``rz = ra W' + a V' + vb`` and ``ra_above = phi' rz [+ ra]`` for coordinates x.
        Return two lists: ra of the input of each layer (None for the first), and rz of each layer.
        """
        M = self.M
        s = self.state
        M.begin_pass()
        ras: list[Any] = [None]
        rzs: list[Array] = []
        for l, layer in enumerate(self.layers):
            rz = layer.forward(M, x[self.cuts[l]])
            if l:
                M(rz, ras[l], s.W[l].T, True)
            rzs.append(rz)
            if l < len(s.p):
                p = s.p[l]
                ra = rz if p is None else np.multiply(p, rz, out=M.empty_matrix(*rz.shape))
                ras.append(ra + ras[l] if s.skips[l] and l else ra)
        return ras, rzs

    def _backward_products(
        self,
        out: Array,
        rdelta: Array,
        along: tuple[Array, list[Any], list[Array]] | None,
        active: Any = None,
    ) -> None:
        """Compute ``rdW = rdelta' a + delta' ra; re_below = rdelta W + delta V [+ re]; rdelta = re
        phi' + e phi'' rz`` and write rdW of each layer to its part of `out`. If `active` is given,
        only the layers for which it is True are written.

        `along` is the tuple (x, ra, rz) from `_forward`, or None to propagate rdelta alone.
        """
        M = self.M
        s = self.state
        re = None
        for l in range(len(self.layers) - 1, -1, -1):
            layer = self.layers[l]
            cut = self.cuts[l]
            if active is None or active[l]:
                layer.gradient(M, rdelta, None if along is None else along[1][l], out[cut])
            if l == 0:
                return
            below = multiply_rows(M, rdelta, s.W[l])
            if along is not None:
                layer.add_backward_term(M, along[0][cut], below)
            if re is not None and s.skips[l]:
                below += re
            re = below
            p = s.p[l - 1]
            eq = s.eq[l - 1]
            rdelta = re if p is None else np.multiply(re, p, out=M.empty_matrix(*re.shape))
            if along is not None and eq is not None:  # `rdelta` is not `re`, since p is not None
                rz = along[2][l - 1]
                rdelta += np.multiply(eq, rz, out=rz)

    def _write_product(self, x: Array, out: Array, kind: str, active: Any = None) -> None:
        """Write the product with x, without l2, to `out`, for all layers or the `active` ones."""
        ras, rzs = self._forward(x)
        curved = self.state.loss.multiply_by_curvature(rzs[-1], kind)
        rdelta = np.asfortranarray(curved, self.M.dtype)
        self._backward_products(out, rdelta, (x, ras, rzs) if kind == "hessian" else None, active)

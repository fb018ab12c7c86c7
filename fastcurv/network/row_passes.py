"""The state of a network at theta for all rows at once, in NumPy: that of sparse rows, whose first
layer is a sparse product, and that of Gram matrices and Kronecker factors.

Matrices with a row for each sample are in Fortran order, so that the engine's products read W and V
without a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.protocols import Array
from ..structure.parameters import forward
from ..structure.tables import activation_spec
from .output_loss import OutputLossDerivatives

if TYPE_CHECKING:
    from ..network.objective import Objective


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

        def activate(l: int, z: Array, below: Any) -> Array:
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

    def _copy_state(self, ob: Objective, state: Any) -> None:
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

    def _to_fortran_order(self, x: Array) -> Array:
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

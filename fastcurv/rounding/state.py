"""The state at theta with its errors: forward and backward of `fastcurv.rounding`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..protocols import Floats
from .arithmetic import ETA, Chain, Err, Phi, at_most, product, scaled, stack_norms


class Came(NamedTuple):
    """What comes back into a layer: e, its error, and the norms of what of that is new there."""

    e: Floats
    de: Err
    new: Any


class State:
    """What is kept at theta for some rows, each thing with its `Err`: a (below each layer), z, p,
    q, eq and d.
    """

    a: list[Floats]
    da: list[Any]  # Err; None below the first layer
    z: list[Floats]
    dz: list[Err]
    phi: list[Phi]
    d: list[Any]
    dd: list[Any]
    eq: list[Any]  # None where phi'' is 0
    deq: list[Any]
    kappa: dict[tuple[int, int], Floats] | None

    def __init__(self, rounding: Any, rows: slice) -> None:
        self.R, self.rows, L = rounding, rows, len(rounding.W)
        self.a, self.da = [rounding.ob.X[rows].astype(float)], [None]
        self.z, self.dz, self.phi = [], [], []
        self.d, self.dd, self.eq, self.deq = ([None] * L for _ in range(4))
        self.forward()
        self.backward()

    def forward(self) -> None:
        """Z = a W' + b;  a = phi(z) [+ the layer's input]."""
        R = self.R
        products: dict[int, tuple[Floats, Floats]] = {}
        self.kappa = {} if R.joint else None
        chain = Chain(self.kappa)
        for l, (W, b) in enumerate(zip(R.W, R.b)):
            a, da = self.a[l], self.da[l]
            z = a @ W.A.T + b
            size = product(at_most(a, da), W.abs.T) + np.abs(b)
            local = R.local(size, W.A.shape[1], 1)
            dz = local if da is None else local + da.across(W)
            self.z.append(z)
            self.dz.append(dz)
            if l == len(R.W) - 1:
                continue
            phi = Phi(R.names[l], z, dz, R.arithmetic, R.skips[l], local)
            self.phi.append(phi)
            above, error, fresh = phi.a, phi.da, phi.fresh
            if R.skips[l]:
                above = above + a
                error, rounded = R.sum_rounded(above, error, da)
                fresh = fresh + rounded
            if R.joint:
                self.join(products, l)
            self.a.append(above)
            self.da.append(chain.cap(l + 1, error, fresh))
        self.loss = R.loss_rows(self.rows, z, dz)

    def join(self, products: dict[int, tuple[Floats, Floats]], l: int) -> None:
        """Layer l, ``D W [+ I]`` for each row, joins the products of those below it, each with a
        bound on what underflow took off; their norms are noted.
        """
        W, p, skip = self.R.W[l], self.phi[l].p, self.R.skips[l]
        assert self.kappa is not None
        for i, (K, off) in products.items():
            above, off_above = W.A @ K, scaled(off, W.norm) + K[0].size * W.A.size * ETA
            if p is not None:
                above, top = p[:, :, None] * above, np.abs(p).max(axis=1, keepdims=True)
                off_above = scaled(off_above, top) + above[0].size * ETA
            products[i] = (above + K, off_above + off) if skip else (above, off_above)
            self.kappa[i, l + 1] = stack_norms(products[i][0]) + products[i][1]
        products[l + 1] = np.eye(len(W.A))[None], np.zeros((1, 1))

    def backward(self) -> None:
        """e_below = delta W [+ e];  delta = e * phi';  e * phi''."""
        R, L = self.R, len(self.R.W)
        chain = Chain(self.kappa)
        self.d[-1], self.dd[-1], came = self.loss.d, self.loss.dd, None
        for l in range(L - 1, 0, -1):
            self.d[l - 1], self.dd[l - 1], came = self.step_back(
                l, chain, self.d[l], self.dd[l], came
            )
            self.eq[l - 1], self.deq[l - 1] = self.phi[l - 1].curvature(
                R, came.e, came.de, self.d[l - 1], self.dd[l - 1]
            )

    def step_back(
        self, l: int, chain: Chain, d: Floats, dd: Err, above: Came | None
    ) -> tuple[Floats, Err, Came]:
        """D and its error from layer l to the one below, of delta or of what goes the same way.

        `above` is what came into layer l itself, None at the top.
        """
        R, W = self.R, self.R.W[l]
        size = product(at_most(d, dd), W.abs)
        e, local, carried = d @ W.A, R.local(size, W.A.shape[0], 1), dd.back(W)
        error = local + carried
        fresh = local.nu + (carried.nu if above is None else scaled(above.new, W.norm))
        if above is not None and R.skips[l]:
            e = e + above.e
            error, rounded = R.sum_rounded(e, error, above.de)
            fresh = fresh + rounded
        de, phi = chain.cap(l, error, fresh), self.phi[l - 1]
        d, dd, new = R.times(e, de, phi.p, phi.dp)
        return d, dd, Came(e, de, new)

"""What bounds are made of, row by row, before a norm or the last rounding hides a part of it:
`test_figures` holds it.

    python -m tests.agreement certify.states

writes it down anew, which is to be done where a bound is meant to change.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcurv.certify import dense_hessian, majorants, precise
from fastcurv.certify.arithmetic import Err, Num
from fastcurv.certify.batch_norm import NormRounding
from fastcurv.certify.columns import Columns
from fastcurv.certify.dense_hessian import Layered, Slab, of_loss
from fastcurv.certify.passes import ErrorPass, passes_at

from ..agreement import lined, rounded, served_by, told
from .figures import HELD, LAYOUT, drawn, fitted, on_kinks
from .figures import NETS as PLAIN
from .regimes import NETS as ENDS
from .regimes import moved

NETS = {
    **{name: PLAIN[name] for name in (
        "gelu, cross entropy", "tanh and sigmoid, float32, four layers", "tanh, batch norm, skips",
        "leaky relu, soft targets", "softplus, binary, skips",
    )},
    **{f"small {name}": net for name, net in ENDS.items()},
}  # fmt: skip
SCALES = ("least", "small", "far")


def of_loss_rows(s: Any, v: Any) -> dict[str, list[Any]]:
    """A direction through the loss, exact and not."""
    loss, like = s.loss, s.loss.d
    rz = np.cos(np.arange(like.size)).reshape(like.shape)
    made = {}
    for i, off in enumerate((Err(0 * rz), Err(1e-9 * np.abs(rz)))):
        made |= {f"r{i}": loss.r_loss(rz, off), f"f{i}": loss.fisher(rz, off)}
    made |= {"norms": loss.r_norms(), "fisher": loss.fisher_norms()}
    return told(**made)


def bounded(ob: Any, theta: Any, v: Any) -> dict[str, list[Any]]:
    """The rows of a plain network."""
    R = ErrorPass(ob, theta, LAYOUT)
    found, s = {}, next(R.states())
    found |= told(state={k: x for k, x in vars(s).items() if k not in ("R", "rows")})
    found |= of_loss_rows(s, v)
    sums = R.new_sums()
    R.add_gradient(s, sums)
    layers = R.direction(v)
    found |= told(sums=sums, forward=R.r_forward(s, layers))
    for kind in ("hessian", "ggn", "fisher"):
        sums = R.new_sums()
        R.r_pass(s, layers, kind, sums)
        found |= told(**{f"r {kind}": sums, f"total {kind}": [sums[0].bounds(1e-300, 1e-16)]})
        columns = Columns(R, kind)
        found |= told(**{f"off {kind}": columns.off, f"off b {kind}": columns.off_b})
    passes = passes_at(ob, np.asarray(theta, float))
    s = next(iter(passes.states()))
    units = [
        (np.outer(1 + np.arange(len(W.A)) % 3, 1 + np.arange(W.A.shape[1]) % 2) / 3, None)
        for W in passes.W
    ]
    for rho in (0.0, 1e-3, 0.5):
        b = majorants.propagate(passes, s, rho)
        found |= told(**{f"walk {rho}": vars(b)})
        found |= told(**{f"in units {rho}": vars(majorants.propagate(passes, s, rho, units))})
        found |= told(**{f"loss {rho}": majorants.loss_bounds(passes, s, rho * b.Z1)})
    found |= told(weights=majorants.weights_of(ob, s))
    if len(passes.W) > 1:
        found |= of_floor(passes, s)
    for kind in ("hessian", "ggn"):
        slab = Slab(passes, s, of_loss(s), slice(1, 9), kind == "hessian")
        blocks = {f"{l}": [*slab.blocks(l)] for l in range(slab.L)}
        found |= told(**{f"slab {kind}": vars(slab), f"blocks {kind}": blocks})
        known = Layered(ob, passes, kind)
        found |= told(**{f"layered {kind}": vars(known)})
    for kind in ("ggn", "fisher"):
        found |= told(**{f"factor {kind}": dense_hessian.factor_rows(s.loss, kind)})
    return found


def of_floor(passes: Any, s: Any) -> dict[str, list[Any]]:
    """The blocks that a floor under the curvature is made of."""
    c, c_z = majorants.reaches(passes, s)
    found = told(c={str(k): x for k, x in c.items()}, c_z={str(k): x for k, x in c_z.items()})
    D, A, U = majorants.RowMatrix(), majorants.RowMatrix(), majorants.UnitBlocks()
    k = max(0, len(passes.W) - 2)
    rows = majorants._inputs(passes, s, k, c[k + 1, k])
    majorants._add_pair(D, A, passes, s, (k + 1, k), c[k + 1, k])
    U.add(s, k + 1, *rows)
    return found | told(D=D, A=A, U=U, bounds=[D.bound(), A.bound(), U.bound()])


def normed(ob: Any, theta: Any, v: Any) -> dict[str, list[Any]]:
    """The rows of one with batch normalisation, which depend on each other."""
    R: Any = NormRounding(ob, theta, LAYOUT)
    s = next(R.states())
    found = told(state={k: x for k, x in vars(s).items() if k not in ("R", "rows")})
    found |= of_loss_rows(s, v)
    layers, sums = R.direction(v), R.new_sums()
    R.add_gradient(s, sums)
    found |= told(gradient=sums, forward=R.norm_forward(s, layers))
    for kind in ("hessian", "ggn", "fisher"):
        sums = R.new_sums()
        R.r_pass(s, layers, kind, sums)
        found |= told(**{f"r {kind}": sums})
        found |= told(**{f"columns {kind}": R.columns(kind)})
    x = np.cos(np.add.outer(np.arange(9.0), np.arange(3.0) ** 1.5))
    for size in (1.0, 1e-160):
        one = Num(size * x, 1e-12 * np.abs(x) * size, R.arithmetic)
        other = one * one + one - one.mean()
        made = [one.sum(), other, other.normalised(), other.err]
        found |= told(**{f"numbers, {size}": made})
    return found


def held(net: dict[str, Any]) -> dict[str, list[Any]]:
    """A net on some of its kinks."""
    found = {}
    for l2 in (net["l2"], 0.0):
        known, point = on_kinks(**{**net, "l2": l2})
        for radius in (0.0, 1e-3, 0.1):
            found |= told(**{f"walk {l2}, {radius}": known.walk(point, radius)})
        found |= told(**{f"gates {l2}": known.gates, f"rows {l2}": vars(known.rows)})
    long = np.finfo(np.longdouble).eps == 2.0**-63
    if long:
        known, point = on_kinks(fit=True, **{**net, "l2": 0.0})
        found |= told(met=known.precise_gradient(point)[1])
    return found


def figures(name: str) -> dict[str, Any]:
    with served_by(), np.errstate(all="ignore"):
        if name in HELD:
            return rounded(held(HELD[name]), 9)
        net = NETS[name]
        of = normed if net.get("batch_norm") else bounded
        if name in PLAIN:
            return rounded(of(*drawn(**net)) | ({} if net.get("batch_norm") else met(net)), 9)
        every = {}
        for scale in SCALES:
            found = of(*moved(net, scale))
            every |= {f"{scale}, {what}": numbers for what, numbers in found.items()}
        return rounded(every, 9)


def met(net: dict[str, Any]) -> dict[str, list[Any]]:
    """In extended precision, with targets that are met: sums, and the errors that go into them."""
    ob, theta, _ = drawn(**net)
    at = np.asarray(theta, float)
    made = {}
    for name, here in (("given", ob), ("met", fitted(ob, ob.model.predict(theta, ob.X)))):
        known = precise.Precise(here, at)
        made[name] = [known.sums.errors, known.sums.value_error, known.g_error, known.value_error]
    z = precise.Bounded(precise.pair(np.cos(np.arange(12.0)).reshape(4, 3)), np.ones((4, 1)) / 9)
    of = {"mse": precise._squares, "binary_cross_entropy": precise._binary}
    y = np.abs(np.sin(np.arange(12.0))).reshape(4, 3)
    terms = of.get(ob.loss, precise._entropy)(z, y)
    made["terms"] = [terms[0].hi, terms[1], terms[2].hi, terms[3]]
    for act in sorted(set(ob.model.activation)):
        for error in (0.0, 1e-9, 2.0):
            near = precise.Bounded(z.value, np.full((4, 1), error))
            a, p, off = precise.Precise.bent(act, near)
            d = known.bent_back(0, near, p, off)
            made[f"{act}, {error}"] = [a.value.hi, a.error, p.hi, off, d.value.hi, d.error]
    return told(**made)


NAMES = (*NETS, *HELD)

if __name__ == "__main__":
    print(lined({name: figures(name) for name in NAMES}))

"""What proofs come to at the ends of the range of numbers, where logits are far apart or the same,
and as every table of kernels cuts its sums: `test_figures` holds them.

    python -m tests.agreement certify.regimes

writes them down anew, which is to be done where a bound is meant to change.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fastcurv as fc
from fastcurv._engine import ACTIVATIONS
from fastcurv.certify import arithmetic, majorants
from fastcurv.certify.passes import passes_at, spectral

from ..agreement import lined, masked, rounded, served_by
from .figures import LAYOUT, bounds, drawn

NETS: dict[str, dict[str, Any]] = {
    "tanh, mse": {"sizes": [3, 4, 2], "l2": 1e-2},
    "gelu, cross entropy": {
        "sizes": [3, 4, 3], "activation": "gelu", "loss": "cross_entropy", "weighted": True,
    },
    "softplus, soft targets": {
        "sizes": [3, 4, 4, 3], "activation": ["softplus", "silu"], "loss": "cross_entropy",
        "soft": True,
    },
    "sigmoid, binary": {
        "sizes": [3, 4, 4, 1], "activation": ["sigmoid", "elu"], "loss": "binary_cross_entropy",
        "residual": True,
    },
    "relu, cross entropy, float32": {
        "sizes": [3, 4, 3], "activation": "relu", "loss": "cross_entropy", "dtype": "float32",
    },
    "tanh, batch norm": {"sizes": [3, 4, 2], "batch_norm": True, "loss": "cross_entropy"},
}  # fmt: skip
# the scale of rows, of theta, of targets that are numbers
SCALES = {
    "nothing": (1.0, 0.0, 1.0),
    "least": (1e-158, 1e-158, 1e-300),
    "small": (1e-80, 1.0, 1e-90),
    "large": (1e60, 1.0, 1e50),
    "far": (1.0, 25.0, 1.0),
    "farther": (30.0, 30.0, 1e3),
}
SINGLE = {"least": (1e-22, 1e-20, 1.0), "small": (1e-15, 1.0, 1.0), "large": (1e12, 1.0, 1.0)}
CUT = (
    {"chunk": 512, "panel": 64, "groups": 3},
    {"chunk": 100, "panel": 0, "groups": 1},
    {"chunk": 64, "panel": 33, "groups": 1, "rows": 900},
    {"chunk": 5000, "panel": 0, "groups": 1},
)


def moved(net: dict[str, Any], scale: str) -> tuple[Any, Any, Any]:
    """An objective and a point with numbers of other sizes."""
    ob, theta, v = drawn(**net)
    rows, size, targets = (SINGLE if ob.dtype == np.float32 else {}).get(scale, SCALES[scale])
    y = ob.y * targets if ob.loss == "mse" else ob.y
    other = fc.Objective(ob.model, ob.X * rows, y, ob.loss, ob.l2, ob.sample_weight)
    return other, (size * theta).astype(theta.dtype), v


def cuts() -> dict[str, list[Any]]:
    """Roundings in a row, by table of kernels, dtype and layout."""
    found: dict[str, list[Any]] = {}
    for arch in ("reference", "baseline", "blas", "numpy"):
        for dtype in ("float64", "float32"):
            for i, layout in enumerate(CUT):
                for N in (1, 23, 5000):
                    r = arithmetic.Arithmetic(np.dtype(dtype), {"arch": arch, **layout}, N)
                    numbers = [r.gamma(k) for k in (1, 7, 1e6)] + [r.elementary, r.chunk]
                    numbers += [r.depth(k, t) for k in (3, 700) for t in (1, 2)]
                    numbers += [r.over_rows(1), r.over_rows(2), r.over_columns()]
                    r.sums = {**r.sums, "from_c": False, "items_of": 32, "item_rows": 90}
                    numbers += [r.over_rows(1), r.over_columns()]
                    found[f"{arch}, {dtype}, {i}, {N} rows"] = ["", *map(float, numbers)]
    return found


def norms() -> dict[str, list[Any]]:
    """Upper bounds on norms of matrices of all shapes and sizes."""
    found: dict[str, list[Any]] = {}
    for m, k in ((1, 1), (3, 5), (40, 7), (300, 280)):
        A = np.cos(np.add.outer(np.arange(m) ** 1.3, np.arange(k) ** 1.7))
        for scale in (0.0, 1e-290, 1e-3, 1e200):
            B = scale * A
            known = arithmetic.Operand(B)
            numbers = [arithmetic.spectral_bound(B), arithmetic.norm(B), known.norm, spectral(B)]
            numbers += [float(known.rows.sum()), float(known.cols.sum())]
            numbers += [arithmetic.gram_bound((B / (scale or 1)) @ A.T)]
            stack = np.array([B, 2 * B, 0 * B])[:, : min(m, 40)]
            numbers += [float(arithmetic.stack_norms(stack)[i, 0]) for i in range(3)]
            x, other = arithmetic.Err(np.abs(B)), arithmetic.Err(np.abs(A) * 1e-3)
            both = (x + other).times(np.abs(A)).held(np.full((m, 1), 3.0))
            out = both.across(known), arithmetic.Err(np.abs(A)).across(known).back(known)
            numbers += [float(e.E.sum()) for e in (both, *out)]
            numbers += [float(e.nu.sum()) for e in (both, *out)]
            found[f"{m} by {k}, {scale}"] = ["", *map(float, numbers)]
    return found


def activations() -> dict[str, list[Any]]:
    """Derivatives and their bounds from far below 0 to far above."""
    found: dict[str, list[Any]] = {}
    z = np.array([-800, -90, -20, -6, -2, -1, -0.3, -1e-9, 0, 1e-9, 0.3, 1, 2, 6, 20, 90, 800.0])
    for name in ACTIVATIONS:
        *parts, _ = arithmetic._derivatives(name, z[:, None])
        for t in (0.0, 1e-6, 0.5, 30.0):
            reach = np.full_like(z[:, None], t)
            largest = arithmetic._largest(name, z[:, None], reach)
            every = [part for part in (*parts, *largest) if part is not None]
            numbers = [float(x) for part in every for x in part.ravel()]
            found[f"{name}, {t}"] = ["", *numbers]
    return found


def ends() -> dict[str, list[Any]]:
    """Infima: labels that pull one way, in every form that labels have."""
    found: dict[str, list[Any]] = {}
    base, theta, _ = drawn(sizes=[3, 4, 3], loss="cross_entropy")
    N = len(base.X)
    some = np.where(np.arange(N) % 4 == 0, 0, 2)
    soft, hard = np.full((N, 3), [0.5, 0.5, 0.0]), np.eye(3)[some]
    signs = np.tile([1.0, 0.0, 1.0], (N, 1))
    cases: dict[str, tuple[Any, str]] = {
        "all classes": (base.y, "cross_entropy"), "two classes": (some, "cross_entropy"),
        "one class": (0 * some, "cross_entropy"), "soft": (soft, "cross_entropy"),
        "hard as soft": (hard, "cross_entropy"), "binary, one way": (signs, "binary_cross_entropy"),
        "binary": (hard, "binary_cross_entropy"), "between": (soft, "binary_cross_entropy"),
        "mse": (soft, "mse"),
    }  # fmt: skip
    weights = {"": None, ", weighted": np.where(some == 0, 0.0, 1.0), ", nothing": np.zeros(N)}
    right = base.model.unflatten(theta.copy())
    for name, (y, loss) in cases.items():
        for what, weight in weights.items():
            for l2, spared in ((0.0, False), (0.1, False), (0.1, True)):
                ob = fc.Objective(base.model, base.X, y, loss, l2, weight, l2_biases=not spared)
                up, down = majorants.pulls(ob) if loss != "mse" else (np.zeros(1), np.zeros(1))
                ray = majorants.ray_to_infimum(ob, theta)
                text = "" if ray is None else majorants.why(ob, ray)
                numbers = [majorants.loss_lower_bound(ob), float(majorants.attains_lower_bound(ob))]
                numbers += [
                    float(up.sum()),
                    float(down.sum()),
                    float(majorants.classified(ob, theta)),
                ]
                if ray is not None:
                    numbers += [float(ray @ np.cos(np.arange(len(ray))))]
                words, more = masked(text)
                found[f"{name}{what}, {l2}, {spared}"] = [words, *numbers, *more]
    (W, b), (V, c) = right
    V[...], c[...] = 0, 0  # a last layer that sorts rows by their largest unit
    V[0, 0] = V[1, 1] = V[2, 2] = 5.0
    sure = base.model.flatten(right)
    outputs = base.model.predict(sure, base.X)
    for name, y, loss in (
        ("classified", np.argmax(outputs, axis=1), "cross_entropy"),
        ("as soft", np.eye(3)[np.argmax(outputs, axis=1)], "cross_entropy"),
        ("each apart", (outputs > 0).astype(float), "binary_cross_entropy"),
    ):
        for l2 in (0.0, 0.1):
            ob = fc.Objective(base.model, base.X, y, loss, l2)
            ray = majorants.ray_to_infimum(ob, sure)
            numbers = [] if ray is None else [float(ray @ np.cos(np.arange(len(ray))))]
            text = "" if ray is None else masked(majorants.why(ob, ray))[0]
            found[f"{name}, {l2}"] = [text, float(majorants.classified(ob, sure)), *numbers]
    return found


def figures(name: str) -> dict[str, list[Any]]:
    with served_by(), np.errstate(all="ignore"):
        if name in PARTS:
            found = PARTS[name]()
        else:
            found = {}
            for scale in SCALES:
                ob, theta, v = moved(NETS[name], scale)
                known = bounds(ob, theta, v, LAYOUT)
                found[scale] = ["", *map(float, known.values())]
                walked = passes_at(ob, np.asarray(theta, float))
                found[f"{scale}, rows"] = ["", float(walked.arithmetic.mean_gamma)]
    return rounded(found, 11)


PARTS = {"cuts": cuts, "norms": norms, "activations": activations, "ends": ends}
NAMES = (*NETS, *PARTS)


if __name__ == "__main__":
    print(lined({name: figures(name) for name in NAMES}))

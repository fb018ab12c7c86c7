"""What every function under a spectrum returns on the way to it: `test_spectrum_figures` holds it.

    python -m tests.agreement spectrum.returns

writes it down anew, which is to be done where one of them is meant to change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastcurv as fc

from ..agreement import lined, returned
from ..certify.figures import drawn
from .figures import DENSITIES, ESTIMATES, PAIRS, operator


def pairs() -> None:
    """Of known spectra, at both ends and beside others."""
    for name in ("uniform", "double"):
        for words in PAIRS.values():
            fc.eigsh(operator(name), **{"k": 6, **words}, seed=5)
    twice = fc.eigsh(operator("double"), 3, "LA", seed=5)
    fc.eigsh(operator("double"), 3, "LA", against=twice, seed=7)


def densities() -> None:
    for words in DENSITIES.values():
        d = fc.spectral_density(operator("hessian"), **words, seed=8)
        d.moment(2), d.mass(0.1), d.integral(), repr(d)


def estimates() -> None:
    for words in ESTIMATES.values():
        fc.trace(operator("uniform"), **words, seed=9)
        if words.get("method") != "hutch++":
            fc.diagonal(operator("uniform"), **words, seed=9)
            fc.frobenius_norm(operator("uniform"), **words, seed=9)
    for method in ("xtrace", "hutch++"):
        fc.trace(operator("hessian"), 24, method=method, seed=9)


def nets() -> None:
    """Of networks: smaller spaces, kept runs, two precisions, whole matrices."""
    ob, theta, v = drawn(sizes=[8, 7, 3], loss="cross_entropy", l2=1e-2)
    few = ob.batch(slice(0, 3))
    for kind in ("hessian", "ggn", "empirical_fisher"):
        H = getattr(few, kind)(theta)
        for space in (None, "parameters", "samples"):
            fc.eigsh(H, 4, "LA", space=space, seed=1)
        fc.eigsh(H, 3, "BE", seed=1)
        fc.inertia(H)
        fc.eigvalsh(H)
    run = fc.spectrum.Krylov(ob.hessian(theta), "mine", seed=2).extend(12)
    run.eigsh(2)
    run.spectral_density()
    fc.eigsh(ob.hessian(theta), 3, "LA", precision="mixed", seed=1)


PARTS: dict[str, Callable[[], None]] = {
    "pairs": pairs, "densities": densities, "estimates": estimates, "nets": nets,
}  # fmt: skip


def figures(name: str) -> dict[str, list[Any]]:
    return returned(PARTS[name], "spectrum", "krylov")


if __name__ == "__main__":
    print(lined({name: figures(name) for name in PARTS}))

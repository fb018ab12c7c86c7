"""Answers from runs that are kept, from smaller spaces, from two precisions and from whole
matrices: `test_spectrum_figures` holds them.

    python -m tests.agreement spectrum.shared

writes them down anew, which is to be done where a cost, a bound or a sentence is meant to change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.common import linalg
from fastcurv.krylov import lanczos, ritz, trust_region
from fastcurv.krylov.lanczos import Recurrence
from fastcurv.krylov.ritz import decompose
from fastcurv.krylov.solvers import Workspace, capped_cg, minres
from fastcurv.spectrum.dense import dense_matrix
from fastcurv.spectrum.density_curve import within

from ..agreement import lined, masked, rounded, served_by
from ..certify.figures import drawn
from .figures import operator


def said(found: Any) -> list[Any]:
    """What a result's words are, with # for numbers; these; what no line shows."""
    text, numbers = masked(repr(found) + "\n" + found._repr_html_())
    for name in ("n_products", "n_new", "n_low", "probed", "scale", "tol", "unseen", "bound"):
        value = getattr(found, name, None)
        numbers.append(-1.0 if value is None or not np.isfinite(value) else float(value))
    vectors = getattr(found, "vectors", None)
    if vectors is not None and vectors.size:
        G = vectors.T.astype(float) @ vectors
        numbers += [float(len(G)), float(np.abs(G - np.eye(len(G))).max() < 1e-3)]
    return [text, *numbers]


def looked(d: Any) -> list[Any]:
    """A density: its words, sums over its grid, moments, masses, and the heights of a picture."""
    text, numbers = masked(repr(d) + "\n" + d._repr_html_())
    numbers += [d.n_products, d.integral(), d.width, d.grid[0], d.grid[-1], len(d.nodes)]
    for estimate in (d.moment(), d.moment(2), d.mass(), d.mass(0.1), d.mass(-0.2, 0.3)):
        numbers += [float(estimate.estimate), float(np.nan_to_num(estimate.stderr))]
    numbers += [float(d.density @ np.cos(np.arange(len(d.density))))]
    part = within(d, low=0.0)
    return [text, *map(float, numbers), float(np.nansum(part.density)), float(part.grid[0])]


def kept() -> dict[str, list[Any]]:
    """Runs that serve many questions, on a known spectrum and on nets in smaller spaces."""
    found: dict[str, list[Any]] = {}
    ob, theta, v = drawn(sizes=[8, 7, 3], loss="cross_entropy", l2=1e-2)
    few = ob.batch(slice(0, 4))
    operators = {"uniform": operator("uniform"), "hessian": ob.hessian(theta)}
    operators |= {"few rows": few.hessian(theta), "ggn": few.ggn(theta)}
    for name, op in operators.items():
        run = fc.spectrum.Krylov(op, "run", seed=3)
        found[f"{name}, start"] = [masked(repr(run.extend(7)))[0], float(run.n_products)]
        for which, k in (("LM", 3), ("SA", 2), ("BE", 4), ("LA", 1)):
            found[f"{name}, {which}"] = said(run.eigsh(k, which, tol=1e-6))
        found[f"{name}, few"] = said(fc.spectrum.Krylov(op, seed=1).eigsh(3, max_products=6))
        found[f"{name}, density"] = looked(run.spectral_density(2, n_grid=128))
        found[f"{name}, its own"] = looked(run.spectral_density(1, 90, axis="log", width=0.1))
        g = np.cos(np.arange(op.shape[0]) ** 1.3)
        other = run.start_from(g, 5)
        found[f"{name}, from g"] = [
            repr(run).split("(")[0], float(other.m), float(run.steps_from(g)),
            float(run.start_from(g, 8).m), float(run.steps_from()), float(run.n_products),
            float(run.steps_from(g + 1)), float(run.dtype.itemsize),
        ]  # fmt: skip
        text, numbers = masked(repr(run))
        found[f"{name}, end"] = [text, *numbers]
    for name in ("uniform", "hessian"):
        op = operator(name)
        for which in ("BE", "LA"):
            pairs = fc.eigsh(op, 7, which, tol=1e-11, max_basis=250, seed=1)
            found[f"{name}, {which}, at length"] = said(pairs)
    small = fc.spectrum.Krylov(operators["uniform"], max_bytes=300 * 8 * 24)
    found["small, pairs"] = said(small.eigsh(4))
    return found


def reduced() -> dict[str, list[Any]]:
    """Eigenpairs, densities, traces and signs by way of smaller operators."""
    found: dict[str, list[Any]] = {}
    ob, theta, _ = drawn(sizes=[14, 9, 3], activation="gelu", loss="cross_entropy", l2=1e-2)
    plain, at, _ = drawn(sizes=[14, 9, 2], activation="tanh", weighted=True)
    for name, net, where in (("l2", ob, theta), ("none", plain, at)):
        few = net.batch(slice(0, 3))
        for kind in ("hessian", "ggn", "empirical_fisher"):
            op = getattr(few, kind)(where)
            for space in ("samples", "outputs", "inputs", "parameters"):
                if kind == "hessian" and space != "samples" and space != "parameters":
                    continue
                words: dict[str, Any] = {"space": space, "seed": 4}
                key = f"{name}, {kind}, {space}"
                try:
                    pairs = fc.eigsh(op, 5, "BE" if name == "l2" else "LM", **words)
                except ValueError as error:
                    found[key] = [masked(str(error))[0]]
                    continue
                found[key] = said(pairs)
                rest = fc.eigsh(op, 2, "LA", against=pairs.vectors[:, -2:], **words)
                found[f"{key}, beside"] = said(rest)
                all_of = fc.eigsh(op, 25, "SA", relative="value", **words)
                found[f"{key}, many"] = said(all_of)
                found[f"{key}, inertia"] = said(fc.inertia(op, space=space))
                if space != "parameters":
                    found[f"{key}, trace"] = said(fc.trace(op, 8, seed=2))
                    d = fc.spectral_density(op, n_probes=2, n_steps=9, n_grid=64, **words)
                    found[f"{key}, density"] = looked(d)
    return found


def mixed() -> dict[str, list[Any]]:
    """Float32 products with float64 ones, on known spectra and on a net."""
    found: dict[str, list[Any]] = {}
    ob, theta, _ = drawn(sizes=[6, 7, 3], loss="cross_entropy")
    H = ob.hessian(theta)
    for name, op in (("uniform", operator("uniform")), ("double", operator("double")), ("net", H)):
        for which, k in (("LM", 3), ("BE", 4), ("SA", 2)):
            for tol, most in ((1e-9, 4000), (1e-12, 4000), (1e-9, 60)):
                pairs = fc.eigsh(
                    op, k, which, tol=tol, precision="mixed", max_products=most, seed=2
                )
                found[f"{name}, {which}, {tol}, {most}"] = said(pairs)
        pairs = fc.eigsh(
            op, 2, "LA", precision="mixed", relative="value", seed=2, v0=np.ones((op.shape[0], 1))
        )
        found[f"{name}, of its size"] = said(pairs)
        rest = fc.eigsh(op, 2, "LA", precision="mixed", against=pairs, seed=2)
        found[f"{name}, beside"] = said(rest)
    return found


def matrix(name: str, n: int) -> Any:
    """Matrices whose eigenvectors are exact, and others."""
    d = np.round(np.linspace(-1.0, 3.0, n), 3)
    if name == "diagonal":
        return np.diag(d)
    if name == "positive":
        return np.diag(d + 1.5)
    if name == "pairs":  # of equal and opposite eigenvalues
        A = np.zeros((n, n))
        at = np.arange(0, n - 1, 2)
        A[at, at + 1] = A[at + 1, at] = 1 + at / 8
        return A
    return 1e-200 * np.diag(d) if name == "tiny" else np.cos(np.add.outer(d, d) * 7)


def dense() -> dict[str, list[Any]]:
    """Whole matrices: signs, errors and floors."""
    found: dict[str, list[Any]] = {}
    for name in ("diagonal", "positive", "pairs", "tiny", "waves"):
        for n in (1, 2, 3, 40, 150):
            A = matrix(name, n)
            whole, apart = linalg.eigh(A), linalg.eigh_apart(A, 1e-9)
            numbers = [float(whole.errors.sum()), whole.error, float(np.abs(whole.values).sum())]
            if isinstance(apart, linalg.Apart):
                numbers += [apart.error, apart.ends]
            text = type(apart).__name__
            for shift in (0.4, 0.499, 0.6):
                numbers.append(linalg.cholesky_floor(A.copy(), shift))
            values, V = linalg.eigh_tridiagonal(np.diagonal(A), np.diagonal(A, 1))
            numbers += [float(np.abs(values).sum()), float(np.abs(linalg.eigvalsh(A)).sum())]
            if n > 2:
                values, V = linalg.eigh_tridiagonal(np.diagonal(A), np.diagonal(A, 1), (1, 2))
                numbers += [*map(float, values), float(V.shape[1])]
            found[f"{name}, {n}"] = [text, *numbers]
            op = LinearOperator(A.shape, A.__matmul__, dtype=np.float64)
            for what, asked in (("matrix", A), ("products", op)):
                M = dense_matrix(asked)
                scale = 1 + np.arange(n) / n
                off = [M.error(), M.error(scale), M.seen(scale), float(M.bounds.sum())]
                signs = said(fc.inertia(asked))
                found[f"{name}, {n}, {what}"] = [*signs, *off, float(M.n_products)]
    lopsided = np.diag(np.arange(1.0, 7.0)) + 1e-3 * np.triu(np.ones((6, 6)), 1)
    op = LinearOperator((6, 6), lopsided.__matmul__, dtype=np.float64)
    M = dense_matrix(op)
    found["lopsided"] = ["", M.error(), M.error(np.arange(1.0, 7.0)), float(M.eigen().errors.sum())]
    for end in (30, 55):
        found[f"tables of {end}"] = said(fc.eigsh(np.diag(np.arange(60.0)), end, tol=0.1, seed=1))
    return found


def parts() -> dict[str, list[Any]]:
    """Recurrences by blocks, from one start and from several."""
    found: dict[str, list[Any]] = {}
    places = np.arange(1.0, 61.0)
    for name, values in (("spread", places), ("far", 0.5 ** (places / 2)), ("both", places - 20.5)):
        A = np.diag(values)
        for p in (1, 2, 3):
            run = Recurrence(LinearOperator(A.shape, A.__matmul__, dtype=np.float64), 30)
            starts = np.cos(np.outer(np.arange(1, p + 1), places**1.3))
            numbers = [float(run.insert(starts / np.linalg.norm(starts, axis=1)[:, None]))]
            while run.p and run.m + run.p <= 24:
                run.step()
            ritz, S = decompose(run)
            numbers += [float(run.m), float(run.p), run.scale, run.noise, float(ritz[-1])]
            numbers += [float(ritz[0]), float(np.abs(run.coupling()).max()), float(run.n_products)]
            run.reorthogonalise()
            numbers.append(float(np.abs(run.rows[: run.m] @ run.rows[: run.m].T).sum()) / run.m)
            found[f"{name}, {p}"] = ["", *numbers]
            if p == 3:
                run.restart(ritz[:8], S[:, :8])
                run.narrow_block(np.outer([1.0, 2.0, 2.0], np.ones(3)) / 9)
                numbers = [float(run.p), float(run.err.sum()), float(np.abs(run.coupling()).sum())]
                run.step()
                numbers += [float(run.m), float(np.abs(run.T[: run.m, : run.m]).sum())]
                found[f"{name}, narrowed"] = ["", *numbers]
    return found


def gradients() -> dict[str, list[Any]]:
    """Conjugate gradients that end, are too slow, or meet negative curvature, of a direction and of
    what has been added up.
    """
    found: dict[str, list[Any]] = {}
    for seed in (*range(40), 148, 181, 602, 618, 627):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(3, 9))
        values = rng.standard_normal(n) * 10.0 ** rng.uniform(-2, 1)
        values = np.where(rng.random(n) < 0.7, np.abs(values), values)
        g, eps = (
            rng.standard_normal(n) * 10.0 ** rng.uniform(-3, 0, n),
            10.0 ** rng.uniform(-2, 0.5),
        )
        made: list[int] = []

        def multiply(v: Any, out: Any, values: Any = values, made: Any = made) -> None:
            made.append(1)
            out[:] = values * v

        for bound in (0.0, 100.0):
            d, curvature, seen = capped_cg(
                multiply, g, eps, 1e-8, Workspace(n, np.float64), bound=bound
            )
            numbers = [float(np.linalg.norm(d)), float(d @ np.cos(np.arange(n))), float(seen)]
            numbers += [0.0 if curvature is None else float(curvature), float(len(made))]
            found[f"{seed}, {bound}"] = [str(curvature is None), *numbers]
    places = np.arange(1.0, 61.0)
    for name, values in (("spread", places), ("far", 0.5 ** (places / 2)), ("both", places - 20.5)):

        def times(v: Any, out: Any, values: Any = values) -> None:
            out[:] = values * v

        for eps, tolerance in ((1e-3, 0.1), (0.5, 1e-6), (1e-8, 1e-9)):
            for what, g in (("sum", np.ones(60)), ("ends", np.eye(60)[0] + 1e-4)):
                d, curvature, seen = capped_cg(times, g, eps, tolerance, Workspace(60, np.float64))
                numbers = [float(np.linalg.norm(d)), float(d @ np.cos(places)), float(seen)]
                found[f"{name}, {eps}, {what}"] = [str(curvature is None), *numbers]
    return found


def problems() -> dict[str, list[Any]]:
    """Small problems in a subspace, bases, risks, and which eigenvalues are wanted."""
    found: dict[str, list[Any]] = {}
    places = np.arange(6.0)
    for name, values in (
        ("both", np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0])),
        ("positive", 0.5 + places),
        ("zeros", np.array([0.0, 0.0, 0.0, 1.0, 1.0, 2.0])),
        ("far", np.array([-1e-12, 1e-9, 1e-3, 1.0, 1e6, 1e9])),
    ):
        for hard in (False, True):
            g = np.cos(places) * (0.0 if hard else 1.0) + np.r_[0, 0, 0, 0.3, 0.2, 0.1]
            numbers = [float(np.cos(places) @ trust_region.absolute(values, g, 0.1))]
            numbers += [
                float(np.cos(places) @ trust_region.shifted(values, g, x)) for x in (0, 1e-3)
            ]
            for size in (1e-3, 0.4, 30.0):
                for solve in (trust_region.trust_region, trust_region.cubic):
                    y, mu = solve(values, g, size)
                    numbers += [float(np.cos(places) @ y), float(np.linalg.norm(y)), mu]
            found[f"{name}, {hard}"] = ["", *numbers]
        for which in ("LA", "SA", "LM", "BE"):
            chosen = [ritz.wanted(values, k, which) for k in (1, 2, 3, 5, 9)]
            kept = [ritz.kept_at_restart(values, k, which, 5) for k in (1, 3)]
            sides = ritz.sides(values, 3, which)
            text = " ".join(map(str, [*chosen, *kept]))
            found[f"{name}, {which}"] = [text, *(float(np.sum(x)) for x in sides)]
    for n, k, eps in ((50, 7, 1e-2), (1000, 40, 1e-3), (10**6, 300, 1e-4), (5, 9, 0.1)):
        steps = float(trust_region.lanczos_steps(n, eps, 1e-3))
        numbers = [trust_region.lanczos_risk(n, k, eps), steps, trust_region.blind(n, 1e-2)]
        found[f"risk, {n}, {k}, {eps}"] = ["", *numbers]
    for scale in (1e-300, 1e-20, 1.0, 1e200):
        W = scale * np.cos(np.outer(np.arange(1, 4), np.arange(9) ** 1.2))
        W[2] = W[0] + 1e-9 * W[1]
        lengths = [lanczos.length(w) for w in W] + list(lanczos.column_lengths(W))
        near = lanczos.bring_near_one(W.copy())
        B, C = lanczos.orthonormalise(W.copy(), floor=1e-6)
        numbers = [*lengths, *near, np.abs(B).sum(), np.abs(C).sum(), float(len(C))]
        found[f"basis, {scale}"] = ["", *map(float, numbers)]
    for A in (np.diag(places + 1), np.diag(places - 2.5)):
        for tol in (1e-1, 1e-8):
            x = minres(lambda v, A=A: A @ v, np.cos(places), 5, tol)
            found[f"minres, {A[0, 0]}, {tol}"] = ["", *map(float, x)]
    return found


PARTS: dict[str, Callable[[], dict[str, list[Any]]]] = {
    "kept": kept, "reduced": reduced, "mixed": mixed, "dense": dense, "parts": parts,
    "gradients": gradients, "problems": problems,
}  # fmt: skip


def figures(name: str) -> dict[str, list[Any]]:
    with served_by(), np.errstate(all="ignore"):
        found = PARTS[name]()
    return rounded(found, 9)


if __name__ == "__main__":
    print(lined({name: figures(name) for name in PARTS}))

"""Inner products with rows, subtraction and combination of rows, and steps of Adam, with every
kernel table and remainder, against float64.
"""

import numpy as np
import pytest

from fastcurv import _engine as engine

LENGTHS = [1, 3, 7, 15, 16, 17, 33, 513, 1030, 2047, 2048, 2049, 20001]


def test_row_operations_match_float64(arch, dtype, rng):
    """Inner products with rows and subtraction of combinations of rows agree with float64 within
    the rounding error of one panel's sum, and write nothing outside their rows.
    """
    for n in LENGTHS:
        gamma = 600 * np.finfo(dtype).eps
        for m, s in [(1, 1), (3, 2), (4, 3), (5, 4), (9, 5), (17, 8), (6, 10), (7, 16)]:
            whole = rng.standard_normal((m + s, n + 5)).astype(dtype)
            before = whole.copy()
            Q, W = whole[:m, 2 : n + 2], whole[m:, 2 : n + 2]
            wide = [a.astype(float) for a in (Q, W)]
            C = engine.project_rows(Q, W)
            assert C.shape == (s, m) and C.dtype == np.float64
            room = gamma * np.abs(wide[1]) @ np.abs(wide[0]).T
            assert (np.abs(C - wide[1] @ wide[0].T) <= room).all()
            squares = engine.subtract_rows(Q, W, C)
            bound = gamma * (np.abs(wide[1]) + np.abs(C) @ np.abs(wide[0]))
            assert (np.abs(W - (wide[1] - C @ wide[0])) <= bound).all()
            assert np.allclose(squares, (W.astype(float) ** 2).sum(axis=1), rtol=gamma)
            assert np.array_equal(whole[:m], before[:m])
            assert np.array_equal(whole[:, :2], before[:, :2])
            assert np.array_equal(whole[:, n + 2 :], before[:, n + 2 :])


def test_combinations_of_rows_match_float64(arch, dtype, rng):
    """Combinations of rows, written to new rows or to the first of the old rows, agree with
    float64.
    """
    for n in LENGTHS:
        gamma = 40 * np.finfo(dtype).eps
        for m, s in [(1, 1), (3, 2), (5, 5), (9, 4), (17, 8), (4, 0)]:
            whole = rng.standard_normal((m, n + 5)).astype(dtype)
            before, Q, S = whole.copy(), whole[:, 2 : n + 2], rng.standard_normal((m, s))
            wide = Q.astype(float)
            Y = engine.combine_rows(Q, S, np.full((s, n), np.nan, dtype))
            assert (np.abs(Y - S.T @ wide) <= gamma * np.abs(S.T) @ np.abs(wide)).all()
            assert np.array_equal(whole, before)
            engine.combine_rows(Q, S, Q[:s])
            assert np.array_equal(Q[:s], Y) and np.array_equal(whole[s:], before[s:])
            assert np.array_equal(whole[:, :2], before[:, :2])
            assert np.array_equal(whole[:, n + 2 :], before[:, n + 2 :])


def test_a_step_of_adam_matches_float64(arch, dtype, rng):
    """A step of Adam in place agrees with float64, and writes nothing outside its vectors."""
    for n in LENGTHS:
        whole = rng.standard_normal((4, n + 5)).astype(dtype)
        whole[3] = whole[3] ** 2
        before, wide = whole.copy(), whole.astype(float)
        theta, g, m, s = whole[:, 2 : n + 2]
        engine.adam_step(theta, g, m, s, 0.9, 0.75, 1.5, 0.1, 1e-2)
        eps = np.finfo(dtype).eps
        average, squares = 0.9 * wide[2] + 0.1 * wide[1], 0.75 * wide[3] + 0.25 * wide[1] ** 2
        step = 0.1 * average / (np.sqrt(1.5 * squares) + 1e-2)
        # the terms of the average may cancel
        rounded = 0.9 * np.abs(wide[2]) + 0.1 * np.abs(wide[1])
        slack = 0.1 * rounded / (np.sqrt(1.5 * squares) + 1e-2) + np.abs(wide[0]) + np.abs(step)
        stepped = (whole[0], wide[0] - step, slack)
        moments = (whole[2], average, rounded), (whole[3], squares, squares)
        for mine, true, size in (*moments, stepped):
            inside = slice(2, n + 2)
            assert (np.abs(mine - true) <= 16 * eps * size)[inside].all()
        assert np.array_equal(whole[1], before[1])
        for outside in (slice(0, 2), slice(n + 2, None)):
            assert np.array_equal(whole[:, outside], before[:, outside])


def test_adam_rejects_unsuitable_arrays(rng):
    four = rng.standard_normal((4, 50))
    read_only = four[0].copy()
    read_only.flags.writeable = False
    for theta in (read_only, four[0, ::2], four[0].astype(np.float32), four[0].astype(int)):
        with pytest.raises(ValueError, match=" must "):
            engine.adam_step(theta, *four[1:], 0.9, 0.999, 1.0, 0.1, 1e-8)


def test_empty_rows_are_accepted_and_unsuitable_rows_rejected(rng):
    W = rng.standard_normal((2, 50))
    assert engine.project_rows(W[:0], W).shape == (2, 0)
    assert np.allclose(engine.subtract_rows(W[:0], W.copy(), np.zeros((2, 0))), (W**2).sum(axis=1))
    assert np.isnan(engine.project_rows(W, np.full((1, 50), np.nan))).all()
    read_only = W.copy()
    read_only.flags.writeable = False
    for call in (
        lambda: engine.project_rows(W, W[:, :40]),
        lambda: engine.project_rows(W, W.astype("float32")),
        lambda: engine.project_rows(W[:, ::2], W[:, ::2]),
        lambda: engine.project_rows(W[0], W),
        lambda: engine.combine_rows(W, np.ones((2, 3)), W.copy()),
        lambda: engine.combine_rows(W, np.ones((2, 2)), W[:, :40]),
        lambda: engine.combine_rows(W, np.ones((2, 2)), read_only),
        lambda: engine.subtract_rows(W, W.copy(), np.zeros((2, 3))),
        lambda: engine.subtract_rows(W, read_only, np.zeros((2, 2))),
    ):
        with pytest.raises(ValueError, match=" must "):
            call()

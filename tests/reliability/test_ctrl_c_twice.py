"""Ctrl-C between and inside products and inner runs, pressed once and twice, and with other
threads.
"""

import ast
import signal

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.common.runtime import (
    Interrupted,
    deferred_interrupts,
    raise_if_interrupted,
)
from fastcurv.testing import PrescribedSpectrum


@pytest.fixture(autouse=True)
def python_handles_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def press_ctrl_c():
    signal.raise_signal(signal.SIGINT)


def test_the_second_ctrl_c_raises_at_once():
    with pytest.raises(KeyboardInterrupt) as error, deferred_interrupts() as stop:
        assert not stop()
        press_ctrl_c()
        assert stop()
        press_ctrl_c()
    assert not isinstance(error.value, Interrupted)


def test_ctrl_c_within_a_product_raises_at_once():
    with pytest.raises(Interrupted), deferred_interrupts() as stop, stop:
        press_ctrl_c()
    with pytest.raises(Interrupted), deferred_interrupts() as stop:
        press_ctrl_c()
        with stop:
            raise AssertionError("a product was begun after Ctrl-C")


class InterruptingOperator(PrescribedSpectrum):
    """An operator that sends SIGINT to its own process in product number `at`, if `inside` is
    True.
    """

    at, inside = 1, True

    def _press(self):
        self.count = getattr(self, "count", 0) + 1
        if self.count == self.at:
            press_ctrl_c()

    def _matvec(self, v):
        if self.inside:
            self._press()
        return super()._matvec(v)

    def _matmat(self, V):
        if self.inside:
            self._press()
        return super()._matmat(V)


@pytest.mark.parametrize("n", [50, 300], ids=["from the matrix", "by a search"])
def test_eigsh_interrupted_before_any_product_raises(n):
    op = InterruptingOperator(np.arange(float(n)))
    with pytest.raises(KeyboardInterrupt):
        fc.eigsh(op, 3, rng=0)
    assert op.count == 1


@pytest.mark.parametrize("at", [5, 9, 17])
def test_interrupted_eigsh_returns_what_it_found(at):
    op = InterruptingOperator(np.geomspace(1, 1e4, 300))
    op.at = at
    found = fc.eigsh(op, 3, rng=0)
    assert found.interrupted and "interrupted" in repr(found)
    assert found.n_products < at + 1
    for value, bound in zip(found.values, found.residuals):
        assert np.abs(np.geomspace(1, 1e4, 300) - value).min() <= bound * (1 + 1e-9)
    with pytest.raises(KeyboardInterrupt):
        raise_if_interrupted(found)


def test_eigsh_interrupted_while_it_measures_residuals_returns_its_pairs():
    """If Ctrl-C interrupts the last products, which measure the residuals of pairs in single
    precision, `eigsh` returns the pairs with correct residuals.
    """
    values = np.geomspace(1, 1e4, 300)
    op, again = (InterruptingOperator(values, dtype="float32") for _ in range(2))
    op.at = -1
    tol = 5e-6  # twice the residuals, which single precision limits
    whole = fc.eigsh(op, 3, tol=tol, rng=0)
    again.at = op.count
    found = fc.eigsh(again, 3, tol=tol, rng=0)
    assert found.interrupted and again.count == op.count
    assert whole.converged.all() and not found.converged.all()
    for value, bound in zip(found.values, found.residuals):
        assert np.abs(values - value).min() <= bound
    assert np.abs(found.vectors.T @ found.vectors - np.eye(3)).max() <= 1e-5


def test_ctrl_c_between_two_products_ends_eigsh(monkeypatch):
    from fastcurv.spectrum.eigsh import ThickRestartSearch

    look, seen = ThickRestartSearch.check, []

    def multiply_and_press(self):
        if self.run.m >= 3 and not seen:
            press_ctrl_c()
            seen.append(self.run.m)
        return look(self)

    monkeypatch.setattr(ThickRestartSearch, "check", multiply_and_press)
    found = fc.eigsh(PrescribedSpectrum(np.geomspace(1, 1e4, 300)), 3, rng=0)
    assert found.interrupted and len(found.values) == 3 and len(seen) == 1


def test_ctrl_c_twice_at_random_moments_leaves_no_trace(python):
    """After two interrupts at random moments a few milliseconds apart, Python's own signal handler
    is installed again, and matrices, eigenvalues and products are bitwise unchanged.
    """
    python(
        """
import os, random, signal, threading, time
import numpy as np
import fastcurv as fc
from fastcurv.certify.dense_hessian import enclosed_hessian
from fastcurv.network.gram import gram_matrix

dice, rng = random.Random(0), np.random.default_rng(0)

def drawn(sizes, N):
    model = fc.MLP(sizes, "tanh")
    X, y = rng.standard_normal((N, sizes[0])), rng.standard_normal((N, sizes[-1]))
    return fc.Objective(model, X, y, "mse", l2=1e-3, n_threads=2), model.init(rng=0)

ob, theta = drawn([40, 24, 16, 5], 400)
wide, there = drawn([200, 100, 10], 32)
narrow, at = drawn([20, 60, 2], 20000)
G, H, v = wide.ggn(there), narrow.hessian(at), rng.standard_normal(len(at))
calls = {
    "by layers": lambda: enclosed_hessian(ob, theta, "hessian").A,
    "outputs": lambda: gram_matrix(wide.ggn(there)).K,
    "narrow": lambda: H @ v,
    "spectrum": lambda: fc.eigsh(G, 3, rng=0).values,
}
expected = {name: call() for name, call in calls.items()}

def press(after, gap):
    for wait in (after, gap):
        time.sleep(wait)
        os.kill(os.getpid(), signal.SIGINT)

for turn in range(12):
    name = list(calls)[turn % 4]
    after, gap = dice.random() * dice.choice([0.004, 0.04]), dice.choice([0, 0.0005, 0.003, 0.01])
    thread = threading.Thread(target=press, args=(after, gap))
    waiting = True
    try:
        thread.start()
        while thread.is_alive():
            calls[name]()
    except KeyboardInterrupt:
        pass
    while waiting:
        try:
            thread.join()
            time.sleep(0.001)
            waiting = False
        except KeyboardInterrupt:
            pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, name
    for name, call in calls.items():
        assert np.array_equal(call(), expected[name]), name
"""
    )


# calls that return their results so far after Ctrl-C
RETURN_AFTER_CTRL_C = (
    "minimize", "fc.minimize", "run_method", "eigsh", "fc.eigsh", "self._run_one_solver"
)  # fmt: skip


# functions that return such a result to their caller, or check `stopped`


def unchecked_calls(node, function):
    """Yield the functions that contain a call of `RETURN_AFTER_CTRL_C` which is no argument of
    `raise_if_interrupted`.
    """
    if isinstance(node, ast.FunctionDef):
        function = node.name
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called == "raise_if_interrupted":
            return
        if called in RETURN_AFTER_CTRL_C:
            yield function
    for child in ast.iter_child_nodes(node):
        yield from unchecked_calls(child, function)

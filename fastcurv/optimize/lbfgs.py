"""L-BFGS: its equations and its line search are at the head of `_engine/quasi_newton.pyx`.

The engine takes many steps in one call where it has all rows of the loss; of any other loss it is
told the value and the gradient at one trial point after the other.

With `precondition` the steps are those of L-BFGS in coordinates x, ``theta = origin + P x``, in
which the curvature of a network is nearer to the identity. For a layer ``z = W a + b``, whose
gradients of rows are ``delta [a 1]``, the second moment of these is nearly a Kronecker product
(Martens and Grosse, Optimizing neural networks with Kronecker-factored approximate curvature,
2015), and a block of P is a root of its inverse:

    A = mean of [a 1]' [a 1] = K K'     G = mean of delta delta' = L L'     [W b] = L^-T X K^-1

each with a share of its mean diagonal added to the diagonal. The pairs are taken along when P is
made anew, after 5, 10, 20, 40, ... steps: ``s = P s_x`` and ``y = P^-T y_x``.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from .._engine import Multiplier, default_threads
from ..common.linalg import cholesky
from ..common.vectors import QuasiNewton, norm
from ..critical.evidence import is_plain
from .checkpoint import damaged
from .run import Method, check_flag

AT_ONCE = 1000  # steps in one call of the engine, which returns after a tenth of a second at most
FIRST = 5  # steps after which the coordinates are made anew; then whenever their number doubled
ADDED = 0.1  # share of a factor's mean diagonal that is added to its diagonal
WIDEST = 512  # beyond this size, or that of half the rows, a factor is taken by its diagonal
ROWS, PER_UNIT = 256, 10  # rows for the factors: at least, and for each unit of the widest


def has_layers(ob: Any) -> bool:
    """Return whether `precondition` is defined for an objective: all rows are in memory, of a
    network without batch normalisation.
    """
    known = hasattr(type(ob), "_layer_states") and is_plain(ob)
    return bool(known and not (ob._by_blocks or ob.model.batch_norm))


class LayerCoordinates:
    """Coordinates x of a network's parameters, ``theta = P x``: see the head of this file.

    Parameters
    ----------
    ob : Objective
        With rows in memory and no batch normalisation.
    """

    factors: list[tuple[Any, Any]]  # ((L, L^-1), (K, K^-1)) of each layer
    scale: float  # of P, beside that of the factors

    def __init__(self, ob: Any) -> None:
        self.model = ob.model
        self.widest = min(WIDEST, ob.n_samples // 2)
        near = [k for k in ob.model.sizes if k <= self.widest]
        count = max(ROWS, PER_UNIT * max(near, default=0))
        rows = np.arange(count) * ob.n_samples // count
        self.ob = ob if count >= ob.n_samples else ob.batch(rows)
        self.multiply = Multiplier(ob.dtype, ob.n_threads or default_threads())

    def fit(self, theta: np.ndarray) -> None:
        """Make P at theta."""
        self.factors, self.scale = [], 1.0
        for a, delta in self.ob._layer_states(theta):
            left, right = self._moment(delta, False), self._moment(a, self.model.bias)
            self.factors.append((self._roots(left), self._roots(right)))

    def shorten(self, g: np.ndarray) -> None:
        """Scale P so that ``P P' g`` is no longer than g, and than 1: as far as a first step goes
        without pairs.
        """
        steepest = norm(self.to_theta(self.to_gradient(g)))
        if 0 < steepest < np.inf:
            self.rescale((min(norm(g), 1.0) / steepest) ** 0.5)

    def rescale(self, scale: float) -> None:
        """Multiply P by a number."""
        self.scale *= scale
        for (root, inverse), _ in self.factors:
            root /= scale
            inverse *= scale

    def _moment(self, a: np.ndarray, bias: bool) -> np.ndarray:
        """Return the mean of a'a, in float64, with a 1 after each row of a if `bias`; its diagonal
        where it is large.
        """
        N, k = a.shape
        if k > self.widest:
            squares = np.einsum("ij,ij->j", a, a, dtype=np.float64) / N
            return np.append(squares, 1.0) if bias else squares
        held = np.empty((k, k), a.dtype)
        self.multiply(held, a.T, a)
        moment = np.ones((k + bias, k + bias))
        moment[:k, :k] = held / N
        if bias:
            moment[k, :k] = moment[:k, k] = a.mean(axis=0)
        return moment

    def _roots(self, moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a root F of a moment FF', with a share of its mean diagonal added, and its
        inverse; of a diagonal one as vectors. A moment that is 0 or overflows becomes the identity.
        """
        k = len(moment)
        diagonal = moment if moment.ndim == 1 else moment.diagonal()
        added = ADDED * float(diagonal.mean())
        root = None
        if moment.ndim == 1:
            root = np.sqrt(moment + added)
        elif 0 < added < np.inf:
            moment[np.diag_indices(k)] += added
            root = cholesky(moment)
        if root is None or not 0 < added < np.inf:
            root = np.ones(k)
        inverse = 1 / root if root.ndim == 1 else solve_triangular(root, np.eye(k), lower=True)
        dtype = self.model.dtype
        return root.astype(dtype), inverse.astype(dtype)

    # the four maps, of points and of gradients, from x and back; of vectors (n,) or in rows

    def to_theta(self, x: np.ndarray) -> np.ndarray:
        """Return P x."""
        return self._mapped(x, 1, False)

    def from_theta(self, d: np.ndarray) -> np.ndarray:
        """Return P^-1 d."""
        return self._mapped(d, 0, False)

    def to_gradient(self, g: np.ndarray) -> np.ndarray:
        """Return the gradient by x, P' g."""
        return self._mapped(g, 1, True)

    def from_gradient(self, g: np.ndarray) -> np.ndarray:
        """Return P^-T g."""
        return self._mapped(g, 0, True)

    def _mapped(self, V: np.ndarray, which: int, gradient: bool) -> np.ndarray:
        """Return V with each layer multiplied from both sides by roots (0) or inverse roots (1);
        for points by the transposed left and the right one, for gradients the other way round.
        """
        out, starts, p = np.empty(V.shape, V.dtype), self.model.starts, V.size // V.shape[-1]
        for l, ((m, k), sides) in enumerate(zip(self.model.shapes, self.factors)):
            here, wide, cut = slice(starts[l], starts[l + 1]), k + self.model.bias, m * k
            left, right = sides[0][which], sides[1][which]
            given, found = V[..., here].reshape(p, -1), out[..., here].reshape(p, -1)
            M = np.empty((p, m, wide), V.dtype)
            M[..., :k] = given[:, :cut].reshape(p, m, k)
            M[..., k:] = given[:, cut:].reshape(p, m, -1)
            M = self._times(M.reshape(p * m, wide), right.T if gradient else right)
            M = M.reshape(p, m, wide).transpose(1, 0, 2).reshape(m, p * wide)
            M = self._times(M.T, left.T if gradient else left).T
            M = M.reshape(m, p, wide).transpose(1, 0, 2)
            found[:, :cut] = M[..., :k].reshape(p, cut)
            found[:, cut:] = M[..., k:].reshape(p, -1)
            out[..., here] = found.reshape(out[..., here].shape)
        return out

    def _times(self, M: np.ndarray, side: np.ndarray) -> np.ndarray:
        """Return ``M side``; for a diagonal, M with its columns scaled."""
        if side.ndim == 1:
            return M * side
        return np.asarray(self.multiply(np.empty(M.shape, M.dtype), M, side))


class LBFGS(Method):
    """L-BFGS steps from at most `memory` pairs, with a line search to the strong Wolfe
    conditions; with `precondition` in coordinates of the layers.
    """

    defaults = {"memory": 20, "precondition": False}
    engine: QuasiNewton
    started: bool
    take_steps: Any  # the engine's `run` on the plan of the objective, or None
    layers: LayerCoordinates | None
    origin: np.ndarray  # theta = origin + P x, where the engine is at x
    at: np.ndarray  # theta of the engine's point
    taken: int  # steps, ...
    due: int  # ... and their number at which P is made anew

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__(run, **options)
        self.engine = QuasiNewton(len(run.theta), run.theta.dtype, self.memory)
        self.at, self.started, self.taken, self.due = self.engine.theta, False, 0, 0
        self.take_steps = self.layers = None
        if self.precondition:
            if not has_layers(run.ob):
                raise ValueError(
                    f"precondition is True for {run.ob!r}; wanted an Objective with all rows in "
                    "memory, of a network without batch normalisation"
                )
            self.layers = LayerCoordinates(run.ob)
        else:
            steps_of = getattr(type(run.ob), "_steps_of", None)  # its own, not of what it wraps
            own = steps_of and is_plain(run.ob)
            self.take_steps = steps_of(run.ob, self.engine) if own else None

    def _start(self) -> None:
        run, self.started = self.run, True
        if self.layers is not None:
            self._turn(self.layers)
            return
        self.engine.start(run.theta, run.f, run.g)
        run.gnorm = self.engine.gradient_norm

    def _turn(self, layers: LayerCoordinates) -> None:
        """Make the coordinates anew at the run's point, and take the pairs along."""
        run, engine = self.run, self.engine
        steps = engine.pairs[: 2 * engine.count : 2]
        changes = engine.pairs[1 : 2 * engine.count : 2]
        if engine.count:
            steps[:], changes[:] = layers.to_theta(steps), layers.from_gradient(changes)
        layers.fit(run.theta)
        layers.shorten(run.g)
        if engine.count:
            steps[:], changes[:] = layers.from_theta(steps), layers.to_gradient(changes)
        self.origin = self.at = run.theta.copy()
        engine.start(np.zeros_like(run.theta), run.f, layers.to_gradient(run.g))
        engine.restore(engine.first, engine.count)
        self.due = max(FIRST, 2 * self.taken)

    def step(self) -> str | None:
        run = self.run
        if not (self.started and np.array_equal(self._here(), run.theta)):  # or it was moved
            self._start()
        elif self.layers is not None and self.taken >= self.due:
            self._turn(self.layers)
        moved = self._search() if self.take_steps is None else self._run()
        if not (moved or run.cut or self.layers is None):  # nowhere lower in these coordinates
            self.layers = None
            self.engine.restore(0, 0)
            self._start()
            moved = self._search()
        self.taken += 1
        return (
            None if moved or run.cut else "the line search found no lower value along the gradient"
        )

    def _here(self) -> np.ndarray:
        """Return theta of the engine's point."""
        return self.engine.theta if self.layers is None else self.at

    def _search(self) -> bool:
        """Take a step by asking the objective; return False if there is none."""
        run, engine, layers = self.run, self.engine, self.layers
        wanted, tried = engine.search(), []
        while wanted:
            theta = engine.trial
            if layers is not None:
                theta = self.origin + layers.to_theta(theta)
            f, g = run.value_and_gradient(theta)
            if layers is not None:
                tried.append((engine.trial.copy(), theta, g))
                g = layers.to_gradient(g)
            wanted = engine.tell(f, g)
            if wanted and run.out_of_budget():
                engine.give_up()
                break
        if engine.moved and layers is None:
            self._follow()
        elif engine.moved:
            self.at, run.g = next(
                (theta, g) for x, theta, g in reversed(tried) if np.array_equal(x, engine.theta)
            )
            run.theta, run.f, run.gnorm = self.at.copy(), engine.value, norm(run.g)
        return engine.moved

    def _run(self) -> bool:
        """Let the engine take as many steps as nobody watches; return False if it took none."""
        run, engine = self.run, self.engine
        begun, evaluations, ending = run.elapsed(), engine.evaluations, None
        left = np.inf if run.max_time is None else run.max_time - begun
        record = np.empty((min(run.ahead, AT_ONCE), 3))
        try:
            ending = self.take_steps(record, run.enough, run.fun_target, left)
        finally:  # after Ctrl-C, the steps taken so far are whole
            run.n_gradients += engine.evaluations - evaluations
            record = record[: engine.steps]
            record[:, 2] += begun
            run.passed(record[:-1])
            if len(record):
                self._follow()
                run.iteration += ending is None
        run.asked, run.gap = time.perf_counter(), engine.gap
        if ending == "max_time":
            run.cut = ending
        return engine.steps > 0

    def _follow(self) -> None:
        """Move the run to where the engine is, and let it know of the lowest point on the way."""
        run, engine = self.run, self.engine
        np.copyto(run.spare, engine.theta)
        run.theta, run.spare = run.spare, run.theta
        run.f, run.g, run.gnorm = engine.value, engine.gradient.copy(), engine.gradient_norm
        if engine.best is not None and engine.best[1] < run.best_score:
            theta, run.best_f, run.best_gnorm = engine.best
            run.best, run.best_score = theta.copy(), run.best_f

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        pairs, rows = self.engine.pairs, range(self.engine.count)
        arrays = {f"s{i}": pairs[2 * i].copy() for i in rows}
        arrays |= {f"y{i}": pairs[2 * i + 1].copy() for i in rows}
        facts: dict[str, Any] = {"first": self.engine.first}
        if self.precondition:
            facts |= {"taken": self.taken, "due": self.due, "scale": None}
        if self.layers is not None and self.started:
            arrays |= {"origin": self.origin, "x": self.engine.theta.copy()}
            facts["scale"] = self.layers.scale
        return arrays, facts

    def load(self, arrays: Any, facts: Any) -> None:
        """Restore every pair into its old row, so that sums over rows agree with the saved run to
        the last bit.
        """
        pairs, first, count = self.engine.pairs, facts["first"], 0
        while count < self.memory and f"s{count}" in arrays and f"y{count}" in arrays:
            pairs[2 * count], pairs[2 * count + 1] = arrays[f"s{count}"], arrays[f"y{count}"]
            count += 1
        if first >= self.memory or (first and count < self.memory):
            raise damaged(f"its oldest pair is in row {first} of {count}")
        if self.layers is not None:
            self._go_on(self.layers, arrays, facts)
        else:
            self._start()
        self.engine.restore(first, count)

    def _go_on(self, layers: LayerCoordinates, arrays: Any, facts: Any) -> None:
        """Restore the coordinates, which are made at their old origin; none after the run has left
        them.
        """
        run, self.taken, self.due = self.run, facts["taken"], facts["due"]
        if facts["scale"] is None:
            self.layers = layers if self.taken == 0 else None
            if self.layers is None:
                self._start()
            return
        self.origin, self.at, self.started = arrays["origin"], run.theta.copy(), True
        layers.fit(self.origin)
        layers.rescale(facts["scale"])
        self.engine.start(arrays["x"], run.f, layers.to_gradient(run.g))

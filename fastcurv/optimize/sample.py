"""Sample critical points of a network, saddles and minima, at many values of the loss."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from ..common.checks import as_rng, check_choice, check_positive, check_positive_int, spawned
from ..common.errors import OBJECTIVE, accept_aliases, refuse_unknown, require, typed
from ..common.progress import bar
from ..common.protocols import Descent
from ..common.runtime import to_nearest
from ..critical.classify import classify
from ..critical.find import find_critical_point
from ..structure.tables import ACTIVATIONS
from .finish import STATUS
from .minimize import minimize

SOURCES = ("narrower", "walk", "descent")
# options of `classify` that apply to any point
PASSED = ("gradient_tol", "curvature_tol", "failure_probability", "max_products", "dense_below")
EPOCHS = (30, 3000)  # full-batch steps of Adam before a walk, drawn evenly in their logarithm


@dataclass(frozen=True, eq=False)
class SampledPoint:
    """A critical point, how it was found, and the verdict on it.

    Attributes
    ----------
    theta : ndarray, shape (n,)
    loss : float
    verdict : CriticalPoint
    source : str
        ``narrower``, ``walk`` or ``descent``; see `sample_critical_points`.
    trivial : str or None
        Why the point says nothing about the loss surface: ``all weights zero``, or ``constant
        output`` if some layer passes nothing on, so that every row gets the same outputs. None for
        other points.
    widths : tuple of int or None
        Hidden widths of the narrower network that was trained, for source ``narrower``.
    """

    theta: np.ndarray = field(repr=False)
    loss: float
    verdict: Any
    source: str
    trivial: str | None = None
    widths: tuple[int, ...] | None = None

    @property
    def kind(self) -> str:
        """The kind of critical point, as returned by `classify`."""
        return str(self.verdict.kind)


class CriticalSample:
    """The result of `sample_critical_points`: a sequence of `SampledPoint`.

    Attributes
    ----------
    points : tuple of SampledPoint
        Sorted by loss, lowest first.
    n_tries : int
        Number of searches; those that did not end at a critical point gave no point.
    """

    def __init__(self, points: list[SampledPoint], n_tries: int) -> None:
        self.points = tuple(sorted(points, key=lambda point: point.loss))
        self.n_tries = n_tries

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[SampledPoint]:
        return iter(self.points)

    @overload
    def __getitem__(self, at: int) -> SampledPoint: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[SampledPoint, ...]: ...
    def __getitem__(self, at: int | slice) -> SampledPoint | tuple[SampledPoint, ...]:
        return self.points[at]

    @property
    def trivial(self) -> tuple[SampledPoint, ...]:
        """The points that are critical because nothing passes through the network."""
        return tuple(point for point in self.points if point.trivial)

    @property
    def nontrivial(self) -> tuple[SampledPoint, ...]:
        """The points that are not trivial."""
        return tuple(point for point in self.points if not point.trivial)

    def counts(self, trivial: bool = False) -> dict[str, int]:
        """Count the points of each kind, among the trivial ones or among all others."""
        points = self.trivial if trivial else self.nontrivial
        return dict(sorted(Counter(point.kind for point in points).items()))

    def __repr__(self) -> str:
        def words(counts: dict[str, int]) -> str:
            return ", ".join(f"{n} {k.replace('_', ' ')}" for k, n in counts.items()) or "none"

        text = f"CriticalSample: {len(self)} points from {self.n_tries} searches"
        lines = [text, f"  {words(self.counts())}"]
        if self.trivial:
            lines.append(f"  and trivial: {words(self.counts(trivial=True))}")
        return "\n".join(lines)


@accept_aliases("classify")
@to_nearest
def sample_critical_points(
    ob: Any,
    n_tries: int = 30,
    *,
    sources: Any = SOURCES,
    epochs: tuple[int, int] = EPOCHS,
    max_iter: int = 100,
    max_time: float | None = None,
    seed: Any = None,
    progress: bool | None = None,
    **verdict: Any,
) -> CriticalSample:
    """Search for critical points of a network from many starts, and classify each.

    Sources take turns:

    * ``narrower``: a network with fewer hidden units is trained to a critical point, and the
      missing units are added with all weights zero (without l2 also by splitting a unit in two).
      This is exactly a critical point of the wide network, at the narrow one's loss [1]_, unless l2
      acts on biases and a unit has a nonzero output for input 0, as a sigmoid has; such a search
      gives no point.
    * ``walk``: Adam for a while, then `find_critical_point`, which converges to saddles as well as
      to minima. Many walks end where the norm of the gradient is itself stationary; they give no
      point.
    * ``descent``: training until convergence.

    No source is an unbiased sample of all critical points.

    Parameters
    ----------
    ob : Objective
        The objective of a network; its rows may be streamed, sparse or in shards.
    n_tries : int
        Number of searches; each costs a training run.
    sources : str or sequence of str
        Sources to take in turn, from ``fastcurv.optimize.sample.SOURCES``.
    epochs : (int, int)
        Range of the number of Adam steps before a walk, drawn uniformly on a logarithmic scale.
    max_iter : int
        Steps of a walk.
    max_time : float or None
        Seconds after which no new search is started.
    seed : None, int or Generator
        Seed of the random choices; the same int gives bit-identical results.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal, if the work takes more than 2 s.
    **verdict
        Passed to `classify`: its tolerances, risk and budget.

    Returns
    -------
    CriticalSample
        Points with the verdict ``not_critical`` are left out; points where nothing passes through
        the network are marked as ``trivial``. After Ctrl-C, the points found before it.

    Raises
    ------
    TypeError
        If `ob` is not the objective of a network, or an option is unknown.
    ValueError
        If a source is unknown, or is "narrower" for a network to which units cannot be added: with
        skip connections, batch normalisation, or no hidden layer.

    See Also
    --------
    fastcurv.MinimumRatioDisplay, fastcurv.find_critical_point

    References
    ----------
    .. [1] K. Fukumizu and S. Amari, Local minima and plateaus in hierarchical structures of
           multilayer perceptrons, Neural Networks 13, 2000.
    .. [2] Y. Dauphin et al., Identifying and attacking the saddle point problem in high-dimensional
           non-convex optimization, NeurIPS 2014.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.standard_normal((40, 3)), rng.integers(2, size=40)
    >>> ob = fc.Objective(fc.MLP([3, 4, 2]), X, y, l2=1e-2)
    >>> sample = fc.sample_critical_points(ob, 4, sources="narrower", seed=0)
    >>> sorted({point.source for point in sample})
    ['narrower']
    """
    refuse_unknown("classify", set(verdict) - set(PASSED), "sample_critical_points", PASSED)
    require(ob, ("n_params", "value", "gradient", "hessian"), "ob", OBJECTIVE, n_tries)
    n_tries = check_positive_int(n_tries, "n_tries")
    if not hasattr(ob, "_with_model"):
        raise TypeError(f"ob is {typed(ob)}; wanted a network's, such as fastcurv.Objective")
    names = _check_sources(sources)
    if "narrower" in names:
        _check_widening(ob.model)
    low, high = _check_epochs(epochs)
    max_iter = check_positive_int(max_iter, "max_iter")
    end = None if max_time is None else time.perf_counter() + check_positive(max_time, "max_time")
    streams = spawned(as_rng(seed), n_tries)
    points: list[SampledPoint] = []
    tried = 0
    try:
        with bar(n_tries, "sample_critical_points", progress) as shown:
            for number, rng in enumerate(streams):
                if end is not None and time.perf_counter() > end:
                    break
                source, widths = names[number % len(names)], None
                if source == "narrower":
                    theta, widths = _from_narrower(ob, rng)
                else:
                    theta = ob.model.init(seed=rng)
                    if source == "walk":
                        theta = _walked(
                            ob, theta, int(np.exp(rng.uniform(*np.log([low, high])))), max_iter
                        )
                    else:
                        theta = _lowered(ob, theta, "newton-cg", max_iter=10 * max_iter, seed=rng)
                tried += 1
                point = classify(ob, theta, **({"seed": rng} | verdict))
                if point.kind != "not_critical":
                    loss = float(ob.value(theta))
                    found = SampledPoint(theta, loss, point, source, why_trivial(ob, theta), widths)
                    points.append(found)
                shown.update(1)
                shown.note(f"{len(points)} points")
    except KeyboardInterrupt:  # return the points found so far
        if not points:
            raise
    return CriticalSample(points, tried)


def why_trivial(ob: Any, theta: np.ndarray) -> str | None:
    """Explain why a point is trivially critical, because the network passes nothing on; None if it
    is not.

    Parameters
    ----------
    ob : Objective
    theta : ndarray, shape (n,)

    Returns
    -------
    str or None
        ``all weights zero``, ``constant output``, or None.
    """
    if not any(layer[0].any() for layer in ob.model.unflatten(theta)):
        return "all weights zero"
    if ob.certificates is None:
        return None
    inputs, outputs = ob.certificates.ranges(theta)
    spread = (outputs.high - outputs.low).max()
    size = max(np.abs(outputs.high).max(), np.abs(outputs.low).max())
    differ = (inputs.high > inputs.low).any()
    return "constant output" if differ and spread <= 1e-5 * max(size, 1e-5) else None


def _lowered(ob: Any, theta: np.ndarray, method: Descent, **options: Any) -> np.ndarray:
    """Return the point that `minimize` reaches; Ctrl-C in it ends the sampling."""
    found = minimize(ob, theta, method, **options)
    if found.status == STATUS["interrupted"]:
        raise KeyboardInterrupt
    return np.asarray(found.x)


def _walked(ob: Any, theta: np.ndarray, steps: int, max_iter: int) -> np.ndarray:
    """Train with Adam for a number of steps, then walk to a critical point."""
    options: dict[str, Any] = {"max_iter": steps, "learning_rate": 1e-2, "verdict": False}
    theta = _lowered(ob, theta, "adam", seed=0, **options)  # full batch: the seed has no effect
    return np.asarray(find_critical_point(ob, theta, max_iter=max_iter).x)


def _check_sources(sources: Any) -> tuple[str, ...]:
    if isinstance(sources, (set, frozenset)) or not isinstance(sources, Iterable):
        raise TypeError(f"sources is {typed(sources)}; wanted some of {', '.join(SOURCES)}")
    names = (sources,) if isinstance(sources, str) else tuple(sources)
    for name in names:
        check_choice(name, SOURCES, "sources")
    if not names:
        raise ValueError("sources is empty; wanted at least one of " + ", ".join(SOURCES))
    return names


def _check_epochs(epochs: Any) -> tuple[int, int]:
    wanted = "wanted two ints >= 1, the fewest and the most"
    if isinstance(epochs, str) or not isinstance(epochs, Iterable):
        raise TypeError(f"epochs is {epochs!r}; {wanted}")
    numbers = [check_positive_int(number, "epochs") for number in epochs]
    if len(numbers) != 2 or numbers[0] > numbers[1]:
        raise ValueError(f"epochs is {epochs!r}; {wanted}")
    return numbers[0], numbers[1]


def _check_widening(model: Any) -> None:
    if len(model.sizes) < 3 or model.residual or model.batch_norm:
        what = "no hidden layer" if len(model.sizes) < 3 else "skip connections or normalisation"
        raise ValueError(f"the model has {what}, so units cannot be added; wanted other sources")


def _from_narrower(ob: Any, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, ...]]:
    """Train a narrower network to a critical point, and widen it to the network of ``ob``."""
    wide = ob.model
    hidden = tuple(int(rng.integers(1, width + 1)) for width in wide.sizes[1:-1])
    sizes = [wide.sizes[0], *hidden, wide.sizes[-1]]
    narrow = type(wide)(sizes, activation=wide.activation, bias=wide.bias, dtype=wide.dtype)
    small = ob._with_model(narrow)
    theta = _lowered(
        small, narrow.init(seed=rng), "newton-cg", max_iter=500, verdict=False, seed=rng
    )
    theta = find_critical_point(small, theta, max_iter=30).x
    split = not np.any(ob.l2) and bool(rng.integers(2))
    layers = [list(layer) for layer in narrow.unflatten(np.asarray(theta))]
    for at, width in enumerate(wide.sizes[1:-1]):
        while len(layers[at][0]) < width:
            # a relu with input 0 sits at its kink; without l2, a bias of -1 keeps it off instead
            off = ACTIVATIONS[wide.activation[at]].kink > 0 and not np.any(ob.l2)
            _add_unit(layers[at], layers[at + 1], split, -1.0 if off else 0.0, rng)
    return wide.flatten([tuple(layer) for layer in layers]), hidden


def _add_unit(
    below: list[Any], above: list[Any], split: bool, bias: float, rng: np.random.Generator
) -> None:
    """Add a unit between two layers: all zero, or a copy of a unit that takes a share of its
    outgoing weights. The network's outputs stay the same.
    """
    W, V = below[0], above[0]
    if split:
        unit, share = int(rng.integers(len(W))), rng.uniform(0.2, 0.8)
        row, column = W[unit : unit + 1], share * V[:, unit : unit + 1]
        V = V.copy()
        V[:, unit] *= 1 - share
        bias = below[1][unit] if len(below) > 1 and below[1] is not None else 0.0
    else:
        row, column = np.zeros_like(W[:1]), np.zeros_like(V[:, :1])
    below[0], above[0] = np.vstack([W, row]), np.hstack([V, column])
    if len(below) > 1 and below[1] is not None:
        below[1] = np.append(below[1], np.asarray(bias, dtype=W.dtype))

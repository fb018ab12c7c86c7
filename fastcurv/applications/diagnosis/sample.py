"""Sample critical points of a network, saddles and minima, at many values of the loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from ...common.checks import (
    as_rng,
    check_choice,
    check_positive,
    check_positive_int,
    is_iterable,
    short_repr,
    spawn_generators,
)
from ...common.errors import (
    OBJECTIVE_HINT,
    raise_if_unknown_argument,
    require_attrs,
    type_phrase,
)
from ...common.progress import show_bar
from ...common.protocols import Descent
from ...common.read_only import FrozenRecord, ReadOnlyMixin
from ...common.runtime import (
    Budget,
    OutOfTime,
    raise_if_interrupted,
    time_limit,
    with_nearest_rounding,
)
from ...common.vectors import safe_norm
from ...critical.classify import classify
from ...network.objective import Objective
from ...network.row_views import with_model
from ...optimize.find import (
    KRYLOV_STEP_MIN_N,
    check_index,
    find_critical_point,
    trivial_point_reason,
)
from ...optimize.minimize import minimize
from ...structure.parameters import has_kinks
from ...structure.symmetry import nearest_copy
from ...structure.tables import activation_spec

SOURCE_NAMES = ("narrower", "walk", "descent")
MAX_STARTS_PER_SEARCH = 4  # maximum number of walks of one search, each from a new start
# maximum index that the first walk of a search draws if no index is requested
MAX_DEFAULT_INDEX = 6
# options of `classify` that do not depend on the point
CLASSIFY_OPTIONS = (
    "gradient_tol",
    "failure_probability",
    "max_products",
    "dense_below",
)
# default range of the number of full-batch Adam steps before a walk, which is drawn log-uniformly
EPOCHS_RANGE = (30, 3000)


@dataclass(frozen=True, eq=False)
class SampledPoint(FrozenRecord):
    """A critical point with its verdict and the kind of search that found it.

    Attributes
    ----------
    theta : ndarray, shape (n,)
        The point.
    loss : float
        The loss at theta.
    verdict : CriticalPoint
        The verdict of `classify` on theta.
    source : str
        ``narrower``, ``walk`` or ``descent``; see `sample_critical_points`.
    trivial : str or None
        Why the point gives no information about the loss surface: ``all weights zero``, or
        ``constant output`` if the outputs of some layer do not depend on its inputs, so that all
        rows have the same outputs. None for other points.
    widths : tuple of int or None
        Hidden widths of the narrower network that was trained, for source ``narrower``.
    requested_index : int or None
        The index that was requested, None without a request; ``verdict.n_negative`` is the index of
        the point.
    """

    theta: np.ndarray = field(repr=False)
    loss: float
    verdict: Any
    source: str
    trivial: str | None = None
    widths: tuple[int, ...] | None = None
    requested_index: int | None = None

    @property
    def kind(self) -> str:
        """The kind of critical point, as returned by `classify`."""
        return str(self.verdict.kind)


class CriticalPointSample(ReadOnlyMixin):
    """Result of `sample_critical_points`: a sequence of `SampledPoint`.

    Attributes
    ----------
    points : tuple of SampledPoint
        Sorted by loss, lowest first.
    n_tries : int
        Number of searches. A search that did not end at a critical point adds no point.
    n_walks : int
        Number of walks, descents and narrower networks that the searches took, at most four each.
    """

    points: tuple[SampledPoint, ...]
    n_tries: int
    n_walks: int
    _read_only = frozenset(("points", "n_tries", "n_walks"))

    def __init__(
        self, points: list[SampledPoint], n_tries: int, n_walks: int = 0, model: Any = None
    ) -> None:
        self.points = tuple(sorted(points, key=lambda point: point.loss))
        self.n_tries, self.n_walks, self._model = n_tries, max(n_walks, n_tries), model

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
        """The points that are critical because the outputs do not depend on the inputs."""
        return tuple(point for point in self.points if point.trivial)

    @property
    def nontrivial(self) -> tuple[SampledPoint, ...]:
        """The points that are not trivial."""
        return tuple(point for point in self.points if not point.trivial)

    @property
    def distinct(self) -> tuple[SampledPoint, ...]:
        """One point from each set of equivalent points, which are equal up to permutations of
        hidden units and sign flips of units with tanh or identity.

        Two points are equivalent if a transformed copy of one lies within the certified radii of
        both or, without certificates, within 1e-6 of its norm. For networks with one hidden layer,
        certified points that are not equivalent are distinct. For deeper networks a point may
        rarely count twice.
        """
        kept: list[SampledPoint] = []
        for point in self.points:
            least = point.loss - 1e-6 * abs(point.loss)
            if not any(other.loss >= least and self._is_same_point(point, other) for other in kept):
                kept.append(point)
        return tuple(kept)

    def _is_same_point(self, a: SampledPoint, b: SampledPoint) -> bool:
        size = max(1.0, safe_norm(a.theta))
        radii = [1e-6 * size if p.verdict.radius is None else p.verdict.radius for p in (a, b)]
        gap = safe_norm(a.theta - nearest_copy(self._model, a.theta, b.theta))
        return gap <= sum(radii) + 1e-14 * size

    def counts(self, trivial: bool = False) -> dict[str, int]:
        """Count the points of each kind.

        Parameters
        ----------
        trivial : bool
            True to count the trivial points, False to count all others.

        Returns
        -------
        dict
            The number of points for each kind that occurs.
        """
        points = self.trivial if trivial else self.nontrivial
        return dict(sorted(Counter(point.kind for point in points).items()))

    def __repr__(self) -> str:
        def words(counts: dict[str, int]) -> str:
            return ", ".join(f"{n} {k.replace('_', ' ')}" for k, n in counts.items()) or "none"

        text = f"CriticalPointSample: {len(self)} points from {self.n_tries} searches"
        if self.n_walks > self.n_tries:
            text += f" by {self.n_walks} walks"
        lines = [text, f"  {words(self.counts())}"]
        if self.trivial:
            lines.append(f"  and trivial: {words(self.counts(trivial=True))}")
        return "\n".join(lines)


@with_nearest_rounding
def sample_critical_points(
    ob: Any,
    n_tries: int = 30,
    *,
    sources: Any = None,
    index: int | Iterable[int] | None = None,
    epochs: tuple[int, int] = EPOCHS_RANGE,
    max_iter: int = 200,
    max_time: float | None = None,
    rng: Any = None,
    progress: bool | None = None,
    **verdict: Any,
) -> CriticalPointSample:
    """Search for critical points of a network from many starts, and classify each.

    Sources take turns:

    * ``narrower``: a network with fewer hidden units is trained to a critical point, and the
      missing units are added with all weights zero (without l2 also by splitting a unit in two).
      The result is exactly a critical point of the wide network, with the loss of the narrow one
      [1]_. If l2 acts on biases and a unit has a nonzero output for input 0, as a sigmoid has, the
      result is not critical, and the search adds no point.
    * ``walk``: from random weights, from weights after some steps of Adam or from near a
      ``narrower`` point, eigenvectors are followed to a critical point of a given index, as by
      `find_critical_point`. From n = 400 on, unless `index` is given, a walk consists of steps of
      Adam and then of Newton-MR. Many such walks end where the norm of the gradient is itself
      stationary.
    * ``descent``: training until convergence.

    A search is repeated from a new start up to three times if it ends at no critical point or at an
    undecided one, or if a walk ends at a trivial point or at another index than requested. The
    kinds of start of walks take turns too, but a repeated walk uses the kind that has been most
    successful so far; the last walk of a search that has found no point uses half the index.

    For networks with relu, whose critical points mostly lie on kinks, descents find most points.

    No source is an unbiased sample of all critical points.

    Parameters
    ----------
    ob : Objective
        The objective of a network; its rows may be streamed, sparse or in shards.
    n_tries : int
        Number of searches, each of which costs at least a training run.
    sources : str or sequence of str, optional
        Sources to take in turn: ``narrower``, ``walk`` and ``descent``. By default all sources, or
        walks alone if an `index` is given.
    index : int or sequence of int, optional
        The number of negative eigenvalues that walks search for, in turn. A request was met if
        ``point.verdict.n_negative == point.requested_index``. By default the first walk of a search
        draws an index from 0 to 6, and repeated walks draw from smaller ranges.
    epochs : (int, int)
        Range of the number of Adam steps before a walk, drawn uniformly on a logarithmic scale.
    max_iter : int
        Maximum number of steps of a walk.
    max_time : float or None
        Seconds after which the current search ends, at the end of a step, and no other search
        begins. A point that the search has found by then is kept.
    rng : None, int or Generator
        Seed of the random choices; the same int gives bit-identical results.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal, if the work takes more than 2 s.
    **verdict
        Options of `classify`: ``gradient_tol``, ``failure_probability``,
        ``max_products`` and ``dense_below``.

    Returns
    -------
    CriticalPointSample
        The points found, also after Ctrl-C. Points with the verdict ``not_critical`` are left out.
        Points where the outputs do not depend on the inputs are marked as ``trivial``.

    Raises
    ------
    TypeError
        If `ob` is not the objective of a network, or an option is unknown.
    ValueError
        If a source is unknown, or is "narrower" for a network to which units cannot be added: with
        skip connections, batch normalisation, or no hidden layer; if an `index` is given for other
        sources than walks, is not from 0 to n, or n is above 4096.

    See Also
    --------
    fastcurv.find_critical_point

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
    >>> sample = fc.sample_critical_points(ob, 4, sources="narrower", rng=0)
    >>> sorted({point.source for point in sample})
    ['narrower']
    """
    raise_if_unknown_argument("sample_critical_points", verdict, CLASSIFY_OPTIONS)
    require_attrs(ob, ("n_params", "value", "gradient", "hessian"), "ob", OBJECTIVE_HINT)
    n_tries = check_positive_int(n_tries, "n_tries")
    if not isinstance(ob, Objective):
        raise TypeError(
            "ob must be an objective of a network, such as fastcurv.Objective, got "
            f"{type_phrase(ob)}."
        )
    asked = _check_indices(index, ob.n_params)
    names = _check_sources(("walk",) if asked and sources is None else sources)
    if asked and set(names) != {"walk"}:
        raise ValueError(f"sources must be 'walk' if an index is given, got {', '.join(names)}.")
    if "narrower" in names and not _has_narrower_networks(ob.model):
        what = "no hidden layer" if len(ob.model.sizes) < 3 else "skip connections or normalisation"
        raise ValueError(
            f"sources must not include 'narrower' for a model with {what}, to which no units can "
            "be added. Use 'walk' or 'descent'."
        )
    max_iter = check_positive_int(max_iter, "max_iter")
    limit = None if max_time is None else check_positive(max_time, "max_time")
    sampler = _CriticalPointSampler(ob, _check_epochs(epochs), max_iter, verdict)
    streams = spawn_generators(as_rng(rng), n_tries)
    points: list[SampledPoint] = []
    tried = 0
    try:
        with show_bar(n_tries, "sample_critical_points", progress) as shown, time_limit(limit):
            for number, rng in enumerate(streams):
                if not sampler.budget.products_left:
                    break
                wanted = asked[number % len(asked)] if asked else None
                found = sampler.search(names[number % len(names)], wanted, rng)
                if found is None and not sampler.budget.products_left:
                    break
                tried += 1
                points += [] if found is None else [found]
                shown.update(1)
                shown.note(f"{len(points)} points")
    except KeyboardInterrupt:
        # After Ctrl-C, return the points found so far.
        if not points:
            raise
    return CriticalPointSample(points, tried, sampler.n_walks, ob.model)


# --------------------------------------------------------------------------------------------------
# Searches.


class _CriticalPointSampler:
    """Searches for critical points of one objective, with the success rate of each kind of
    start.
    """

    def __init__(
        self,
        ob: Any,
        epochs: tuple[int, int],
        max_iter: int,
        verdict: dict[str, Any],
    ) -> None:
        self.ob, self.epochs, self.max_iter, self.verdict = ob, epochs, max_iter, verdict
        self.n_walks, self.budget = 0, Budget()
        self.smooth = not has_kinks(ob.model)
        names = [
            name
            for name in START_FUNCTIONS
            if name != "narrower" or _has_narrower_networks(ob.model)
        ]
        # (number of successful walks, number of walks), each plus 1, by kind of start
        self.led = dict.fromkeys(names, (1, 1))
        self.n_searches = 0

    def search(
        self, source: str, requested_index: int | None, rng: np.random.Generator
    ) -> SampledPoint | None:
        """Return the best point of at most `MAX_STARTS_PER_SEARCH` walks of the kind `source` to
        the index `requested_index`, or to any index if that is None. Return None if no walk ends at
        a critical point.

        A nontrivial point of the requested index is best, a trivial point of that index is second,
        and any other critical point is third.
        """
        best, rank = None, 0
        follows = source == "walk" and (
            requested_index is not None or self.ob.n_params < KRYLOV_STEP_MIN_N
        )
        turn = self.n_searches % len(self.led)
        self.n_searches += source == "walk"
        for attempt in range(MAX_STARTS_PER_SEARCH):
            self.n_walks += 1
            index = requested_index
            if follows and index is None:
                index = int(rng.integers(min(MAX_DEFAULT_INDEX >> attempt, self.ob.n_params) + 1))
            elif index is not None and best is None and attempt == MAX_STARTS_PER_SEARCH - 1:
                index //= 2  # because there may be no point of the requested index
            shares = {name: led / of for name, (led, of) in self.led.items()}
            start = max(shares, key=shares.__getitem__) if attempt else list(shares)[turn]
            try:
                theta, widths = self._walk(source, start, index if follows else None, rng)
            except OutOfTime:
                # A run ends slightly before its deadline if its next step would exceed it.
                self.budget.exhaust()
                break
            point = classify(
                self.ob,
                theta,
                **{"rng": rng, "max_time": self.budget.inner_max_time()} | self.verdict,
            )
            critical = point.kind != "not_critical"
            settled = critical and point.kind != "undecided"
            if not self.budget.products_left and not settled:
                break
            there = settled and (requested_index is None or point.n_negative == requested_index)
            trivial = trivial_point_reason(self.ob, theta) if critical else None
            here = critical + 2 * there + (there and not trivial)
            if here > rank:
                loss = float(self.ob.value(theta))
                best = SampledPoint(theta, loss, point, source, trivial, widths, requested_index)
                rank = here
            if follows:
                led, of = self.led[start]
                self.led[start] = led + (here == 4), of + 1
            if here == 4 or (here == 3 and not follows):
                break
        return best

    def _walk(
        self, source: str, start: str, index: int | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, tuple[int, ...] | None]:
        """Return the end point of one walk, descent or narrower network, as `source` requires. Also
        return the hidden widths of the narrower network, or None for other sources.

        A walk goes from a start of the kind `start` to a point of the given index. If `index` is
        None, it goes from weights after some Adam steps to any critical point.
        """
        ob = self.ob
        if source == "narrower":
            return _widen_narrower_point(self, rng)
        if source == "walk" and index is not None:
            theta = START_FUNCTIONS[start](self, rng)
        elif source == "walk":
            theta = _train_by_adam(self, ob.model.init(rng=rng), rng)
        else:
            theta = ob.model.init(rng=rng)
            theta = _minimise_in_remaining_time(
                self, ob, theta, "newton-cg", max_iter=10 * self.max_iter, rng=rng
            )
            if not self.smooth or ob.n_params >= KRYLOV_STEP_MIN_N:
                return theta, None
            index = 0  # proofs need points closer to a critical point
        found = find_critical_point(ob, theta, index=index, max_iter=self.max_iter, verdict=False)
        return np.asarray(found.x), None


def _train_by_adam(
    sampler: _CriticalPointSampler, theta: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the point that full-batch Adam reaches from theta. The number of steps is drawn from
    the range `sampler.epochs`.
    """
    low, high = np.log(sampler.epochs)
    steps = int(np.exp(rng.uniform(low, high)))
    # The method needs no seed, since full-batch training is deterministic.
    return _minimise_in_remaining_time(
        sampler,
        sampler.ob,
        theta,
        "adam",
        rng=0,
        max_iter=steps,
        learning_rate=1e-2,
        verdict=False,
    )


def _draw_weights(sampler: _CriticalPointSampler, rng: np.random.Generator) -> np.ndarray:
    """Return random parameters (n,). Their size is drawn between half and three times the size of
    those that `MLP.init` draws.
    """
    return np.asarray(rng.uniform(0.5, 3.0) * sampler.ob.model.init(rng=rng))


def _perturbed_narrower_point(
    sampler: _CriticalPointSampler, rng: np.random.Generator
) -> np.ndarray:
    """Return a point near a critical point of a narrower network, with added units. The point is
    moved by a tenth of its norm, and by at least 0.1, in a random direction, so that these units
    differ.
    """
    theta = np.asarray(_widen_narrower_point(sampler, rng)[0], dtype=float)
    aside = rng.standard_normal(theta.size)
    return theta + 0.1 * max(1.0, safe_norm(theta)) * aside / safe_norm(aside)


# functions that draw the starts of walks to points of a given index
START_FUNCTIONS: dict[str, Callable[[_CriticalPointSampler, np.random.Generator], np.ndarray]] = {
    "random": _draw_weights,
    "trained": lambda sampler, rng: _train_by_adam(sampler, _draw_weights(sampler, rng), rng),
    "narrower": _perturbed_narrower_point,
}


def _minimise_in_remaining_time(
    sampler: _CriticalPointSampler, ob: Any, theta: np.ndarray, method: Descent, **options: Any
) -> np.ndarray:
    """Return the point that `minimize` reaches from theta by `method`. Raise OutOfTime if the
    remaining time of the sampling ends first, and KeyboardInterrupt after Ctrl-C.
    """
    found: Any = raise_if_interrupted(
        minimize(ob, theta, method, max_time=sampler.budget.inner_max_time(), **options)
    )
    if found.stopped == "max_time":
        raise OutOfTime
    return np.asarray(found.x)


def _check_indices(index: Any, n: int) -> list[int]:
    """Return the requested indices of critical points, their numbers of negative eigenvalues, as a
    list of ints. Each must be at least 0 and at most n, the number of parameters. `index` is an
    int, an iterable of ints, or None, for which the list is empty.
    """
    if index is None:
        return []
    if isinstance(index, (set, frozenset, str)) or not is_iterable(index):
        return [check_index(index, n)]
    indices = [check_index(one, n) for one in index]
    if not indices:
        raise ValueError("index must be one or several ints from 0 to n, got an empty list.")
    return indices


def _check_sources(sources: Any) -> tuple[str, ...]:
    sources = SOURCE_NAMES if sources is None else sources
    if isinstance(sources, (set, frozenset)) or not is_iterable(sources):
        raise TypeError(
            f"sources must be some of {', '.join(SOURCE_NAMES)}, got {type_phrase(sources)}."
        )
    names = [sources] if isinstance(sources, str) else sources
    checked = tuple(check_choice(name, SOURCE_NAMES, "sources") for name in names)
    if not checked:
        raise ValueError(
            f"sources must hold at least one of {', '.join(SOURCE_NAMES)}, got {sources!r}."
        )
    return checked


def _check_epochs(epochs: Any) -> tuple[int, int]:
    wanted = f"epochs must be two ints >= 1, the minimum and the maximum, got {short_repr(epochs)}."
    if isinstance(epochs, str) or not is_iterable(epochs):
        raise TypeError(wanted)
    numbers = [check_positive_int(number, "epochs") for number in epochs]
    if len(numbers) != 2 or numbers[0] > numbers[1]:
        raise ValueError(wanted)
    return numbers[0], numbers[1]


def _has_narrower_networks(model: Any) -> bool:
    return len(model.sizes) > 2 and not model.residual and not model.batch_norm


def _widen_narrower_point(
    sampler: _CriticalPointSampler, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Train a narrower network to a critical point, and widen it to the network of the objective.
    Return the point of the wide network, and the hidden widths of the narrow one.
    """
    ob, wide = sampler.ob, sampler.ob.model
    hidden = tuple(int(rng.integers(1, width + 1)) for width in wide.sizes[1:-1])
    sizes = [wide.sizes[0], *hidden, wide.sizes[-1]]
    narrow = type(wide)(sizes, activation=wide.activation, bias=wide.bias, dtype=wide.dtype)
    small = with_model(ob, narrow)
    theta = _minimise_in_remaining_time(
        sampler, small, narrow.init(rng=rng), "newton-cg", max_iter=500, verdict=False, rng=rng
    )
    theta = find_critical_point(small, theta, method="newton-mr", max_iter=30, verdict=False).x
    split = not np.any(ob.l2) and bool(rng.integers(2))
    layers = [list(layer) for layer in narrow.unflatten(np.asarray(theta))]
    for at, width in enumerate(wide.sizes[1:-1]):
        while len(layers[at][0]) < width:
            # A relu unit whose weights are 0 lies exactly on its kink. Without l2, a bias of -1
            # avoids this.
            off = activation_spec(wide.activation[at]).kink > 0 and not np.any(ob.l2)
            _add_unit(layers[at], layers[at + 1], split, -1.0 if off else 0.0, rng)
    return wide.flatten([tuple(layer) for layer in layers]), hidden


def _add_unit(
    below: list[Any], above: list[Any], split: bool, bias: float, rng: np.random.Generator
) -> None:
    """Add a unit between two layers without changing the outputs of the network. `below` and
    `above` hold the parameters of the two layers and are changed.

    The unit has weights 0 and the bias `bias`. With `split`, the unit is instead a copy of another
    unit and takes over part of the outgoing weights of that unit.
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

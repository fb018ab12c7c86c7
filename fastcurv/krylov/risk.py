"""The risk that Lanczos from a random start misses an extreme eigenvalue."""

import numpy as np

from ..protocols import Floats


def lanczos_risk(n: int, k: int, eps: float) -> float:
    """The chance that k Lanczos steps from a random start miss an end of the spectrum by more than
    eps of its width.

    ``1.648 sqrt(n) exp(-(2k - 1) sqrt(eps))``, Kuczynski and Wozniakowski, SIAM J. Matrix Anal.
    Appl. 13, 1992.

    Examples
    --------
    >>> lanczos_risk(100_000, 544, 1e-4) <= 0.01
    True
    """
    return (
        min(1.0, float(1.648 * np.sqrt(n) * np.exp(-(2 * k - 1) * np.sqrt(eps)))) if k < n else 0.0
    )


def lanczos_steps(n: int, eps: float, risk: float) -> int:
    """The fewest steps for which `lanczos_risk` is at most `risk`.

    Examples
    --------
    >>> lanczos_steps(100_000, 1e-4, 0.01)
    544
    """
    k = 0.5 * (1 + np.log(1.648 * np.sqrt(n) / risk) / np.sqrt(eps))
    return int(min(n, max(1, np.ceil(k))))


def growth(diagonal: Floats, beside: Floats, at: Floats) -> Floats:
    """The logarithm of ``sum_j p_j(mu)^2`` for each mu of `at`, p_j the orthonormal polynomials of
    a Lanczos run, whose tridiagonal matrix this is.

    Let z be a unit eigenvector of the operator, mu its eigenvalue and w what the unit start has
    along it. Then the j-th Lanczos vector has ``p_j(mu) w`` along z, and the squares of all of them
    sum to 1 at most: ``w^2 <= exp(-growth)``. So a run that holds nothing of z had a start that is
    as good as orthogonal to it, see `blind`.

    Examples
    --------
    >>> growth(np.array([1.0, 2.0]), np.array([0.5]), np.array([1.0, 0.0])).round(3)
    array([0.   , 1.609])
    """
    unit = max(float(np.abs(x).max(initial=0.0)) for x in (diagonal, beside, at)) or 1.0
    diagonal, beside, at = diagonal / unit, beside / unit, at / unit
    before, now, total = np.zeros(len(at)), np.ones(len(at)), np.ones(len(at))
    taken, back = np.zeros(len(at)), 0.0
    for a, b in zip(diagonal[:-1], beside):
        before, now, back = now, ((at - a) * now - back * before) / b, b
        total += now**2
        large = total > 1e100
        if large.any():
            shrink = np.where(large, 1e-50, 1.0)
            before, now, total = before * shrink, now * shrink, total * shrink**2
            taken += large * np.log(1e100)
    return np.asarray(np.log(total) + taken)


def blind(n: int, risk: float) -> float:
    """The `growth` from which on an eigenvector that a run from a random start does not hold is
    there at that risk at the most.

    What a random unit vector has along a given one is ``x`` or less with a chance of at most ``x
    sqrt(2 n / pi)``.

    Examples
    --------
    >>> round(blind(1000, 0.05), 2)
    12.45
    """
    return float(np.log(2 * n / np.pi) - 2 * np.log(risk))

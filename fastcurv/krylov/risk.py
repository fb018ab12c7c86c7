"""The risk that Lanczos from a random start misses an extreme eigenvalue."""

import numpy as np


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


def lanczos_reach(n: int, k: int, risk: float) -> float:
    """The least eps for which `lanczos_risk` of k steps is at most `risk`; infinity without steps.

    Examples
    --------
    >>> lanczos_reach(100_000, 544, 0.01) <= 1e-4 < lanczos_reach(100_000, 543, 0.01)
    True
    """
    if k >= n:
        return 0.0
    return float((np.log(1.648 * np.sqrt(n) / risk) / (2 * k - 1)) ** 2) if k > 0 else np.inf

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

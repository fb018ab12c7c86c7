"""Weight decay with the largest evidence, and standard deviations, for estimators."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...common.objectives import cast_to_float64, sample_weights
from ...common.runtime import raise_if_interrupted
from ...network.objective import Objective
from ...structure.parameters import has_kinks
from ...structure.tables import loss_spec
from ..uncertainty.laplace import (
    ExactFitError,
    LaplacePosterior,
    is_negative_log_likelihood,
    laplace_posterior,
)
from ..uncertainty.left_out import minimum_after_fit
from ..uncertainty.path import max_evidence_posterior, with_units_pruned
from .held_out import CLASS_TRIAL_DECAYS, needs_decay_floor

# maximum number of parameters for alpha="evidence"; for more, the matrix and its factor take longer
# than the fits
MAX_EVIDENCE_PARAMS = 4096
MAX_PATH_STEPS = 500  # maximum number of L-BFGS iterations at each penalty of the path


def _exact_fit_error(est: Any) -> ValueError:
    """Return the exception for a fit whose residuals do not determine the noise."""
    return ValueError(
        "alpha must be larger where the residuals are 0 or the rows determine as many parameters "
        f"as there are targets, got {est.alpha!r}. The residuals then do not determine the noise. "
        "Use a number such as alpha=1.0, fewer units or more rows."
    )


def choose_alpha_by_evidence(est: Any, ob: Objective, start: np.ndarray) -> np.ndarray:
    """Set ``alpha_`` of the estimator to the decay with the largest evidence on a path from large
    to small decays, and return the minimum (n,) for this decay.

    Parameters
    ----------
    est : MLPClassifier or MLPRegressor
    ob : Objective
        The objective of the fit, without a penalty.
    start : ndarray (n,)
        The parameters at which the path starts.
    """
    if est.solver != "auto" or est.early_stopping:
        option = "early_stopping=True" if est.early_stopping else f"solver={est.solver!r}"
        raise ValueError(
            f"alpha must be a number >= 0 with {option}, got 'evidence'. The evidence needs "
            "solver='auto' and early_stopping=False."
        )
    if ob.n_params > MAX_EVIDENCE_PARAMS:
        raise ValueError(
            f"alpha must be a number >= 0 for a network of more than {MAX_EVIDENCE_PARAMS} "
            f"parameters, got "
            f"'evidence' for {ob.n_params}. Use smaller hidden_layer_sizes, or cross-validation."
        )
    given = loss_spec(ob.loss).given
    if not is_negative_log_likelihood(ob.loss) or given and given.built_in and not given.convex:
        raise ValueError(
            "loss must be 'squared_error', 'poisson', 'gamma' or an fc.Loss of your own with "
            f"alpha='evidence', got {est.loss!r}. Use one of these, or a number for alpha."
        )
    options = {"validation": None, "rng": 0}

    def minimise(one: Objective, theta: np.ndarray) -> Any:
        return raise_if_interrupted(
            est._run_one_solver(one, theta, "l-bfgs", MAX_PATH_STEPS, options)
        ).x

    try:
        least = CLASS_TRIAL_DECAYS[-1] if needs_decay_floor(ob.loss) else 0.0
        l2 = least / (est._total * est._scale)
        best = max_evidence_posterior(ob, start, minimise, count=est._total, min_l2=l2)
    except ExactFitError:
        raise _exact_fit_error(est) from None
    est.alpha_ = best.objective.l2 * est._total * est._scale
    return best.theta.astype(ob.dtype)


def laplace_of_fit(est: Any, ob: Objective) -> LaplacePosterior:
    """Return the Laplace posterior of a fit, from the Gauss-Newton matrix.

    The posterior is centred at the minimum that further training reaches from the end of the fit.
    With ``alpha="evidence"``, whose fits end where the gradient vanishes, and with kinks, it is
    centred at the end of the fit.
    """
    center = np.array(est.theta_)
    if est.alpha != "evidence" and not has_kinks(ob.model):
        # Units without weights have biases on which no output depends and which have no decay, so
        # both are set to 0.
        end = with_units_pruned(cast_to_float64(ob), minimum_after_fit(ob, center))
        center = end.astype(center.dtype)
    try:
        return laplace_posterior(ob, center, count=est._total, warn=True)
    except ExactFitError:
        raise _exact_fit_error(est) from None
    except ValueError as error:
        raise ValueError(
            f"alpha must be large enough for standard deviations, got {est.alpha!r}. Use "
            f"alpha='evidence' with activation='tanh'. {error}"
        ) from None


def noise_of_targets(post: LaplacePosterior) -> np.ndarray:
    """Return the standard deviation (m,) of the noise of each target. Each has the same share of
    the degrees of freedom, so that the mean of the squares is that of the posterior.
    """
    ob = post.objective
    noise = float(post.noise_std or 0.0)
    if noise == 0.0 or ob.model.sizes[-1] == 1:
        return np.full(ob.model.sizes[-1], noise)
    residuals = ob.model.predict(post.theta, ob.X) - ob.y
    weight = sample_weights(ob)
    squares = weight @ residuals**2
    return np.asarray(noise * np.sqrt(squares / squares.mean()))


def observation_std(post: LaplacePosterior, theta: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Return the standard deviations (N, m) of new observations at the rows of X, relative to the
    predictions at theta. They include the difference between these and the predictions at the mean
    of the posterior.

    The deviation of each output is scaled by the ratio of the noise of its target to that of the
    posterior.
    """
    model = post.objective.model
    noise = noise_of_targets(post)
    spread = post.std(X).reshape(len(X), -1) * (noise / post.noise_std)
    shift = model.predict(theta, X) - model.predict(post.theta, X)
    return np.asarray(np.sqrt(spread**2 + noise**2 + shift**2))

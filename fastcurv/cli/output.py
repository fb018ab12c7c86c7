"""What the shell command prints."""

import numpy as np

import fastcurv as fc

from .report import evidence


def extremes(hessian, k, seed, progress=False):
    """The ``k`` lowest and ``k`` highest eigenpairs."""
    k = min(2 * k, hessian.shape[0])
    return fc.eigsh(hessian, k=k, which="BE", tol=1e-6, seed=seed, progress=progress)


def describe(objective, data):
    """One line: the net, the data, the objective."""
    model = objective.model
    sizes = "-".join(map(str, model.sizes))
    name = model.activation[0] if model.activation else "linear"
    name += ", skip connections" * model.residual + ", batch normalisation" * model.batch_norm
    return (
        f"{data.name}: {len(data.X)} samples; net {sizes}, {name}, {objective.n_params} "
        "parameters; "
        f"{data.loss}, l2 {objective.l2:g}"
    )


def state(objective, theta, data):
    """Loss, gradient norm and scores at ``theta`` in one line."""
    value, gradient = objective.value_and_gradient(theta)
    known = objective.statistics(theta) if objective.model.batch_norm else None
    outputs = [objective.model.predict(theta, X, known) for X in (data.X, data.X_test)]
    scores = [data.score(z, y) for z, y in zip(outputs, (data.y, data.y_test))]
    return (
        f"loss {value:.6f}, gradient norm {np.linalg.norm(gradient):.1e}, "
        f"{data.score_name} {scores[0]:.3f}, held out {scores[1]:.3f}"
    )


def print_pairs(pairs):
    print(f"{'eigenvalue':>14}  residual")
    for value, residual, converged in zip(pairs.values, pairs.residuals, pairs.converged):
        print(f"{value:>14.6g}  {residual:.0e}{'' if converged else '  not converged'}")
    print(f"{pairs.n_products} products")


def print_verdict(point):
    print(f"verdict: {point.kind.replace('_', ' ')}{' (certified)' if point.certified else ''}")
    print(f"  {point.reason}")
    for name, value in evidence(point):
        print(f"  {name:<32} {value}")


def iter_points(theta):
    """Two parameter vectors in turn, so that nothing kept from the last call can answer."""
    while True:
        yield theta
        yield theta * 0.99

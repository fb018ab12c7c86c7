"""How many digits of derivatives, eigenvalues and Laplace approximations are correct?

    PYTHONPATH=. python benchmarks/correct_digits.py [--only torch jax] [--networks NAME ...]

Seven programs compute, in float64, those values of the reference networks (`benchmarks/reference`)
that they offer. Printed are, for each program and quantity, the number of networks, and the
smallest and the median number of correct digits: ``-log10(|x - c| / |c|)``, at most 12, by norms
for vectors, and the smallest of all entries for eigenvalues and losses of left-out rows. Zeros are
left out, and so are gradients that are 0 up to rounding. Errors of a program are listed.
"""

import sys
from collections import defaultdict
from pathlib import Path

import command
import numpy as np

import fastcurv as fc

sys.path.insert(0, str(Path(__file__).resolve().parent / "reference"))
import load

MAX_DIGITS = 12.0
NOISE_STD = 0.5  # see the README of the reference networks
SMALLEST_GRADIENT = 1e-6  # norm below which the digits of a gradient cancel
QUANTITIES = [
    *("value", "gradient", "products", "eigenvalues", "trace"),
    *("leave_one_out", "log_evidence", "standard_deviations"),
]


class NotOffered(Exception):
    """The program does not offer this network."""


def correct_digits(computed, certified):
    """Return the number of correct digits of an array, by norms; at least 0."""
    computed, certified = np.asarray(computed, float), np.asarray(certified, float)
    error = np.linalg.norm(computed - certified) / np.linalg.norm(certified)
    return float(np.clip(-np.log10(max(error, 1e-300)), 0.0, MAX_DIGITS)) if error >= 0 else 0.0


def score(name, computed, net):
    """Return the correct digits of one quantity, or None if there is nothing to compare."""
    certified = getattr(net, name)
    if certified is None or computed is None:
        return None
    certified, computed = np.asarray(certified), np.asarray(computed)
    if not certified.any() or (
        name == "gradient" and np.linalg.norm(certified) < SMALLEST_GRADIENT
    ):
        return None
    if name in ("products", "standard_deviations"):
        columns = zip(
            computed.reshape(len(computed), -1).T, certified.reshape(len(certified), -1).T
        )
        return min(correct_digits(x, c) for x, c in columns)
    if name in ("eigenvalues", "leave_one_out"):
        large = np.abs(certified) > 1e-10 * np.nanmax(np.abs(certified))  # False for NaN
        pairs = list(zip(computed[large], certified[large]))
        return min((correct_digits(x, c) for x, c in pairs), default=None)
    return correct_digits(computed, certified)


# --------------------------------------------------------------------------------------------------
# Programs. Each is a function of a network that returns a dict of quantities.


def penalties(net):
    """Return l2 (n,) for each parameter."""
    parts = []
    for below, above in zip(net.sizes, net.sizes[1:]):
        parts += [net.l2] * (below * above) + [net.l2 * net.l2_biases] * (above * net.bias)
    return np.array(parts)


def poisson_constant(net):
    """Return the term of the loss that depends on y alone."""
    if net.loss != "poisson":
        return 0.0
    y = net.y[net.y > 0]
    return float(np.sum(y * np.log(y) - y) / net.y.size)


def with_curvature(value, gradient, hessian, products):
    """Return the dict of quantities of a program that has the whole Hessian."""
    return {
        "value": value,
        "gradient": gradient,
        "products": products,
        "eigenvalues": np.linalg.eigvalsh(hessian),
        "trace": np.trace(hessian),
    }


def by_fastcurv(net):
    model = fc.MLP(net.sizes, net.activations, bias=net.bias, residual=any(net.skips))
    weight = net.sample_weight
    ob = fc.Objective(model, net.X, net.y, net.loss, net.l2, weight, l2_biases=net.l2_biases)
    H = ob.hessian(net.theta)
    found = {
        "value": ob.value(net.theta),
        "gradient": ob.gradient(net.theta),
        "products": H @ net.vectors,
        "eigenvalues": fc.eigvalsh(H),
        "trace": fc.trace(H).estimate,
    }
    if net.log_evidence is not None:
        post = fc.laplace(ob, net.theta, noise_std=NOISE_STD if net.loss == "mse" else None)
        found["log_evidence"] = post.log_evidence
        found["standard_deviations"] = post.std(net.X[:3]).reshape(3, -1)
    if net.leave_one_out is not None:
        terms = 1 if net.loss == "cross_entropy" else net.sizes[-1]  # a row's loss is their mean
        found["leave_one_out"] = terms * fc.leave_one_out(ob, net.theta, exact=True).losses
    return found


def torch_loss(net, torch):
    """Return the loss as a function of a flat theta, in torch."""
    functional = torch.nn.functional
    X = torch.tensor(net.X)
    y = torch.tensor(net.y)
    if net.loss == "cross_entropy" and y.ndim == 1:
        y = functional.one_hot(y, net.sizes[-1]).double()
    weight = torch.ones(len(X)) if net.sample_weight is None else torch.tensor(net.sample_weight)
    decay = torch.tensor(penalties(net))
    phis = {
        "identity": lambda z: z,
        "relu": torch.relu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "softplus": functional.softplus,
    }
    terms = {
        "mse": lambda z: functional.mse_loss(z, y, reduction="none").mean(1),
        "cross_entropy": lambda z: functional.cross_entropy(z, y, reduction="none"),
        "binary_cross_entropy": lambda z: functional.binary_cross_entropy_with_logits(
            z, y, reduction="none"
        ).mean(1),
        "poisson": lambda z: functional.poisson_nll_loss(z, y, reduction="none").mean(1),
    }[net.loss]
    constant = poisson_constant(net)

    def loss(theta):
        a, at = X, 0
        for l, (below, above) in enumerate(zip(net.sizes, net.sizes[1:])):
            z = a @ theta[at : at + below * above].reshape(above, below).T
            at += below * above
            if net.bias:
                z = z + theta[at : at + above]
                at += above
            if l == len(net.sizes) - 2:
                break
            a = phis[net.activations[l]](z) + (a if net.skips[l] else 0.0)
        return (weight.double() * terms(z)).mean() + constant + (decay * theta**2).sum() / 2

    return loss


def by_torch(net):
    import torch

    loss = torch_loss(net, torch)
    theta = torch.tensor(net.theta, requires_grad=True)
    value = loss(theta)
    (gradient,) = torch.autograd.grad(value, theta, create_graph=True)
    products = [
        torch.autograd.grad(gradient, theta, torch.tensor(v), retain_graph=True)[0].numpy()
        for v in net.vectors.T
    ]
    hessian = torch.autograd.functional.hessian(loss, theta.detach()).numpy()
    return with_curvature(value.item(), gradient.detach().numpy(), hessian, np.transpose(products))


def by_compiled_torch(net):
    import torch

    loss = torch_loss(net, torch)
    theta = torch.tensor(net.theta)
    torch._dynamo.reset()
    both = torch.compile(torch.func.grad_and_value(loss))
    product = torch.compile(
        lambda theta, v: torch.func.jvp(torch.func.grad(loss), (theta,), (v,))[1]
    )
    gradient, value = both(theta)
    products = [product(theta, torch.tensor(v)).numpy() for v in net.vectors.T]
    hessian = np.array([product(theta, v).numpy() for v in torch.eye(len(theta)).double()])
    return with_curvature(
        value.item(), gradient.numpy(), (hessian + hessian.T) / 2, np.transpose(products)
    )


def by_jax(net):
    import jax

    jax.config.update("jax_enable_x64", True)
    from jax import numpy as jnp

    X, y, weight = jnp.array(net.X), jnp.array(net.y), net.sample_weight
    if net.loss == "cross_entropy" and y.ndim == 1:
        y = jax.nn.one_hot(y, net.sizes[-1], dtype=jnp.float64)
    decay, constant = penalties(net), poisson_constant(net)
    phis = {"identity": lambda z: z, "tanh": jnp.tanh} | {
        name: getattr(jax.nn, name) for name in ("relu", "sigmoid", "softplus")
    }
    terms = {
        "mse": lambda z: jnp.mean((z - y) ** 2, 1),
        "cross_entropy": lambda z: -jnp.sum(y * jax.nn.log_softmax(z), 1),
        "binary_cross_entropy": lambda z: jnp.mean(jax.nn.softplus(z) - y * z, 1),
        "poisson": lambda z: jnp.mean(jnp.exp(z) - y * z, 1),
    }[net.loss]

    def loss(theta):
        a, at = X, 0
        for l, (below, above) in enumerate(zip(net.sizes, net.sizes[1:])):
            z = a @ theta[at : at + below * above].reshape(above, below).T
            at += below * above
            if net.bias:
                z = z + theta[at : at + above]
                at += above
            if l == len(net.sizes) - 2:
                break
            a = phis[net.activations[l]](z) + (a if net.skips[l] else 0.0)
        each = terms(z) if weight is None else weight * terms(z)
        return jnp.mean(each) + constant + jnp.sum(decay * theta**2) / 2

    theta = jnp.array(net.theta)
    value, gradient = jax.jit(jax.value_and_grad(loss))(theta)
    product = jax.jit(lambda v: jax.jvp(jax.grad(loss), (theta,), (v,))[1])
    products = [np.array(product(jnp.array(v))) for v in net.vectors.T]
    hessian = np.array([product(v) for v in jnp.eye(len(theta))])
    hessian = (hessian + hessian.T) / 2
    return with_curvature(float(value), np.array(gradient), hessian, np.transpose(products))


def torch_module(net, torch):
    """Return the network as torch.nn.Sequential, its loss, and the targets."""
    losses = {
        "mse": torch.nn.MSELoss,
        "cross_entropy": torch.nn.CrossEntropyLoss,
        "binary_cross_entropy": torch.nn.BCEWithLogitsLoss,
    }
    if any(net.skips) or net.sample_weight is not None or net.loss not in losses:
        raise NotOffered
    phis = {"relu": "ReLU", "tanh": "Tanh", "sigmoid": "Sigmoid", "softplus": "Softplus"}
    layers, at = [], 0
    for l, (below, above) in enumerate(zip(net.sizes, net.sizes[1:])):
        layer = torch.nn.Linear(below, above, bias=net.bias, dtype=torch.float64)
        for p in layer.parameters():
            p.data = torch.tensor(net.theta[at : at + p.numel()]).reshape(p.shape)
            at += p.numel()
        layers.append(layer)
        if l < len(net.sizes) - 2 and net.activations[l] != "identity":
            layers.append(getattr(torch.nn, phis[net.activations[l]])())
    return torch.nn.Sequential(*layers), losses[net.loss](), torch.tensor(net.y)


def by_backpack(net):
    import torch
    from backpack import backpack, extend
    from backpack.extensions import DiagHessian
    from backpack.hessianfree.hvp import hessian_vector_product

    module, loss, y = torch_module(net, torch)
    params, X = list(module.parameters()), torch.tensor(net.X)
    decay = penalties(net)
    value = loss(module(X), y)
    shapes = [p.shape for p in params]

    def product(v):
        parts = torch.tensor(v).split([shape.numel() for shape in shapes])
        parts = [part.reshape(shape) for part, shape in zip(parts, shapes)]
        out = hessian_vector_product(value, params, parts)
        return np.concatenate([x.detach().numpy().ravel() for x in out]) + decay * v

    found = {"products": np.transpose([product(v) for v in net.vectors.T])}
    if "softplus" not in net.activations and net.loss != "binary_cross_entropy":
        with backpack(DiagHessian()):
            extend(loss)(extend(module)(X), y).backward()
        found["trace"] = sum(p.diag_h.sum().item() for p in params) + decay.sum()
    return found


def by_curvlinops(net):
    import torch
    from curvlinops import HessianLinearOperator

    module, loss, y = torch_module(net, torch)
    params, X = list(module.parameters()), torch.tensor(net.X)
    decay = penalties(net)
    H = HessianLinearOperator(module, loss, params, [(X, y)], check_deterministic=False)

    def product(v):
        return (H @ torch.tensor(v)).detach().numpy() + decay * v

    hessian = np.array([product(v) for v in np.eye(len(net.theta))])
    return {
        "products": np.transpose([product(v) for v in net.vectors.T]),
        "eigenvalues": np.linalg.eigvalsh(hessian),
        "trace": np.trace(hessian),
    }


def by_laplace_torch(net):
    import torch
    from laplace import Laplace

    if net.log_evidence is None or net.loss not in ("mse", "cross_entropy"):
        raise NotOffered
    torch.set_default_dtype(torch.float64)
    module, _, y = torch_module(net, torch)
    n_terms = len(net.X) * (net.sizes[-1] if net.loss == "mse" else 1)
    data = torch.utils.data.TensorDataset(torch.tensor(net.X), y)
    likelihood, more, factor = "classification", {}, n_terms
    if net.loss == "mse":
        likelihood, more = "regression", {"sigma_noise": NOISE_STD}
        factor = n_terms / (2 * NOISE_STD**2)
    post = Laplace(
        module,
        likelihood,
        subset_of_weights="all",
        hessian_structure="full",
        prior_precision=torch.tensor(factor * net.l2, dtype=torch.float64),
        **more,
    )
    post.fit(torch.utils.data.DataLoader(data, batch_size=len(net.X)))
    _, variance = post._glm_predictive_distribution(torch.tensor(net.X[:3]))
    variance = torch.diagonal(variance, dim1=1, dim2=2) if variance.ndim == 3 else variance
    return {
        "log_evidence": post.log_marginal_likelihood().item(),
        "standard_deviations": variance.detach().sqrt().numpy().reshape(3, -1),
    }


PROGRAMS = {
    "fastcurv": by_fastcurv,
    "torch": by_torch,
    "torch-compiled": by_compiled_torch,
    "jax": by_jax,
    "backpack": by_backpack,
    "curvlinops": by_curvlinops,
    "laplace-torch": by_laplace_torch,
}


def measure(program, names):
    """Return two dicts for a program: lists of correct digits by quantity, and errors by network.
    Return None if the program is not installed.
    """
    digits, errors = defaultdict(dict), {}
    for name in names:
        net = load.load(name)
        command.begin_step(f"{program}, {name}")
        try:
            computed = PROGRAMS[program](net)
        except NotOffered:
            continue
        except ImportError as error:
            print(f"{program} is left out: {error}")
            return None
        except Exception as error:  # any failure of a program is a result
            errors[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            continue
        for quantity, value in computed.items():
            found = score(quantity, value, net)
            if found is not None:
                digits[quantity][name] = found
    return {"digits": digits, "errors": errors}


def main():
    args = command.parser(__doc__)
    command.add_names_option(args, "--only", PROGRAMS)
    command.add_names_option(args, "--networks", load.names())
    args = args.parse_args()
    with command.run(args) as numbers:
        for program in args.only:
            numbers[program] = measure(program, args.networks)
        print(
            f"{'program':<15}{'quantity':<21}networks  smallest  median  (network of the smallest)"
        )
        for program, results in numbers.items():
            for quantity in QUANTITIES if results else ():
                found = results["digits"].get(quantity)
                if found:
                    least = min(found, key=found.get)
                    middle = np.median(list(found.values()))
                    print(
                        f"{program:<15}{quantity:<21}{len(found):>8}{found[least]:>10.1f}"
                        f"{middle:>8.1f}  {least}"
                    )
            for name, error in results["errors"].items() if results else ():
                print(f"{program:<15}error in {name}: {error}")


if __name__ == "__main__":
    main()

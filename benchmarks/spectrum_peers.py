"""The contenders for the user's whole job on a spectrum, each alone in a process of its own.

Run as a script, this file is such a process: one JSON request per line in, one answer per line out.

    {"do": "build", "workload": "digits"}       -> {"n": 2778}
    {"do": "eigenpairs", "k": 5, "tol": 1e-3} -> {"seconds": 0.05, "values": [...], "products": 93}
    {"do": "density", "probes": 5, "steps": 60} -> {"seconds": 0.1, "moments": [], "products": 300}

What is timed starts with the operator built, bound to theta and warm, and ends with values and
vectors in memory. Peers get their operator in its fastest form; ARPACK gets both ends in one call,
which is cheaper for it than two.
"""

import sys
import time
import warnings

import numpy as np
from peers import confine_to_processors, serve_requests, torch_problem
from workloads import WORKLOADS, flat

DTYPE = "float32"


class Contender:
    """One library on one workload, in float32."""

    def build(self, workload):
        """Make the operator, compute a product to warm it up, and return n."""
        raise NotImplementedError

    def eigenpairs(self, k, tol, seed):
        """Return k eigenvalues of each end, ascending, and the number of products."""
        raise NotImplementedError

    def density(self, probes, steps, seed):
        """Return nodes and weights of all probes as lists, and the number of products."""
        raise NotImplementedError


class Fastcurv(Contender):
    def build(self, workload, dtype=DTYPE):
        import fastcurv as fc

        self.fc = fc
        X, y, layers, _ = workload.problem(DTYPE)
        model = fc.MLP(workload.sizes, activation=workload.activation, dtype=dtype)
        ob = fc.Objective(model, X, y, loss=workload.loss)
        self.H = ob.hessian(flat(layers))
        self.H @ np.ones(self.H.shape[0], DTYPE)
        return self.H.shape[0]

    def eigenpairs(self, k, tol, seed):
        pairs = self.fc.eigsh(self.H, 2 * k, "BE", tol=tol, rng=seed)
        return pairs.values, pairs.n_products

    def density(self, probes, steps, seed):
        d = self.fc.spectral_density(self.H, probes, steps, rng=seed)
        return d.nodes, d.weights, d.n_products


class Reference(Fastcurv):
    """Values in float64 with a smaller tolerance, with which the others are compared."""

    def build(self, workload):
        return super().build(workload, "float64")

    def moments(self, samples, seed):
        """Return the means of ``v'Hv / n`` and ``||Hv||^2 / n`` over random signs v, and
        the standard deviations of single samples.
        """
        rng, n, seen = np.random.default_rng(seed), self.H.shape[0], []
        for _ in range(samples):
            v = rng.choice([-1.0, 1.0], n)
            Hv = self.H @ v
            seen.append([v @ Hv / n, Hv @ Hv / n])
        return {
            "moments": np.mean(seen, axis=0).tolist(),
            "scatter": np.std(seen, axis=0, ddof=1).tolist(),
        }


class _Scipy(Contender):
    """SciPy's `eigsh` (ARPACK), and Lanczos in NumPy with full reorthogonalisation, on a product of
    a library's own.
    """

    def multiply(self, v):
        raise NotImplementedError

    def eigenpairs(self, k, tol, seed):
        from scipy.sparse.linalg import LinearOperator, eigsh

        count = 0

        def matvec(v):
            nonlocal count
            count += 1
            return self.multiply(v)

        op = LinearOperator((self.n, self.n), matvec, dtype=DTYPE)
        v0 = np.random.default_rng(seed).standard_normal(self.n).astype(DTYPE)
        values, _ = eigsh(op, 2 * k, which="BE", tol=tol, v0=v0)
        return np.sort(values), count

    def density(self, probes, steps, seed):
        rng = np.random.default_rng(seed)
        nodes, weights = [], []
        for _ in range(probes):
            Q = np.empty((steps, self.n), DTYPE)
            q = rng.choice(np.array([-1, 1], DTYPE), self.n)
            q /= np.linalg.norm(q)
            alphas, betas = [], []
            for j in range(steps):
                Q[j] = q
                w = self.multiply(q)
                alphas.append(float(q @ w))
                for _ in range(2):
                    w = w - (Q[: j + 1] @ w) @ Q[: j + 1]
                betas.append(float(np.linalg.norm(w)))
                q = w / np.float32(betas[-1])
            T = np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
            theta, S = np.linalg.eigh(T)
            nodes.append(theta)
            weights.append(S[0] ** 2)
        return np.array(nodes), np.array(weights), probes * steps


class Jax(_Scipy):
    """``jit(linearize(grad))`` on one flat vector."""

    def build(self, workload):
        import jax
        import jax.numpy as jnp
        from jax.flatten_util import ravel_pytree

        X, y, layers, _ = workload.problem(DTYPE)
        X, y, layers = jax.tree.map(jnp.asarray, (X, y, layers))
        theta, unravel = ravel_pytree(layers)
        phi = {
            "tanh": jnp.tanh,
            "relu": jax.nn.relu,
            "gelu": lambda z: jax.nn.gelu(z, approximate=False),
        }[workload.activation]

        def value(theta):
            a = X
            for i, (W, b) in enumerate(unravel(theta)):
                a = (a if i == 0 else phi(a)) @ W.T + b
            if workload.loss == "mse":
                return jnp.mean((a - y) ** 2)
            return jnp.mean(
                jax.nn.logsumexp(a, axis=1) - jnp.take_along_axis(a, y[:, None], axis=1)[:, 0]
            )

        _, linear = jax.linearize(jax.grad(value), theta)
        self.program, self.n = jax.jit(linear), theta.size
        self.multiply(np.ones(self.n, DTYPE))
        return self.n

    def multiply(self, v):
        return np.array(self.program(v.astype(DTYPE, copy=False)))


class Curvlinops(_Scipy):
    def build(self, workload):
        import curvlinops
        import torch

        net, X, y, loss, _ = torch_problem(workload, DTYPE)

        self.A = curvlinops.HessianLinearOperator(
            net, loss, list(net.parameters()), [(X, y)], check_deterministic=False
        )
        self.op = self.A.to_scipy(dtype=np.float32)
        self.n = self.op.shape[0]
        torch.manual_seed(0)
        self.multiply(np.ones(self.n, DTYPE))
        return self.n

    def multiply(self, v):
        return self.op @ v

    def density(self, probes, steps, seed):
        """Return the density by curvlinops' Lanczos, which finds the ends by ARPACK first and
        does not reorthogonalise.
        """
        import curvlinops

        grid, density = curvlinops.lanczos_approximate_spectrum(self.A, steps, num_repeats=probes)
        weights = density.numpy() / density.numpy().sum()
        return grid.numpy()[None], weights[None], probes * steps


class PyHessian(Contender):
    def build(self, workload):
        import torch

        net, X, y, loss, _ = torch_problem(workload, DTYPE)
        torch.eig = self._eig(torch)
        import pyhessian

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.hessian = pyhessian.hessian(net, loss, data=(X, y), cuda=False)
        return sum(p.numel() for p in net.parameters())

    @staticmethod
    def _eig(torch):
        """Return torch.eig for symmetric matrices, which PyHessian calls and torch removed."""

        def eig(T, eigenvectors=True):
            values, vectors = torch.linalg.eigh(T)
            return torch.stack([values, torch.zeros_like(values)], dim=1), vectors

        return eig

    def eigenpairs(self, k, tol, seed):
        raise NotImplementedError("largest eigenvalues by magnitude alone")

    def density(self, probes, steps, seed):
        nodes, weights = self.hessian.density(iter=steps, n_v=probes)
        return np.array(nodes), np.array(weights), probes * steps


CONTENDERS = {
    "fastcurv": Fastcurv,
    "jax + scipy": Jax,
    "curvlinops + scipy": Curvlinops,
    "pyhessian": PyHessian,
}
SERVED = CONTENDERS | {"reference": Reference}


class Worker:
    """The requests that a process can make of its contender, one method each."""

    def __init__(self, name):
        self.contender = SERVED[name]()

    def build(self, workload):
        return {"n": int(self.contender.build(WORKLOADS[workload]))}

    def eigenpairs(self, k, tol, seed):
        start = time.perf_counter()
        values, products = self.contender.eigenpairs(k, tol, seed)
        return {
            "seconds": time.perf_counter() - start,
            "values": [float(v) for v in values],
            "products": int(products),
        }

    def density(self, probes, steps, seed):
        start = time.perf_counter()
        nodes, weights, products = self.contender.density(probes, steps, seed)
        seconds = time.perf_counter() - start
        moments = [float((weights * nodes**power).sum() / weights.sum()) for power in (1, 2)]
        return {"seconds": seconds, "moments": moments, "products": int(products)}

    def moments(self, samples, seed):
        return self.contender.moments(samples, seed)


if __name__ == "__main__":
    confine_to_processors(int(sys.argv[2]))
    serve_requests(Worker, sys.argv[1])

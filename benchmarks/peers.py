"""The contenders: fastcurv, torch, JAX in two ways, curvlinops and PyHessian. Each runs alone in a
process of its own.

Run as a script, this file is such a process: it reads one JSON request per line and answers with
one.

    {"do": "build", "workload": "mnist", "dtype": "float32", "threads": 2}
                                             -> {"calls": [...], "answer": [...]}
    {"do": "time", "call": "product", "repeat": 20}  -> {"seconds": 0.0041}
    {"do": "peak"}                                   -> {"flops": 2.3e11}

Peers use their fastest form: lists of tensors instead of one flat vector, and nothing is copied or
flattened in the timed calls. Gradients alternate between two points, so that no result is cached.
"""

import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
from workloads import WORKLOADS, flat

BLOCK = 8  # columns in a block of vectors
MAX_ANSWER_SECONDS = 120.0  # time after which the process of a contender is ended


class Contender:
    """One library on one workload. Its calls take no arguments and return when the result is in
    memory.

    ``config`` describes the device or the build. `Fastcurv` also has ``peak``, the flops per second
    of fused multiply-adds.
    """

    def build(self, workload, dtype, threads):
        """Prepare everything that is not timed, and return ``{name: callable}``."""
        raise NotImplementedError

    def product(self):
        """Return the product as one flat NumPy vector, which is compared between contenders."""
        raise NotImplementedError


class Fastcurv(Contender):
    def build(self, workload, dtype, threads):
        import fastcurv as fc

        X, y, layers, direction = workload.problem(dtype)
        model = fc.MLP(workload.sizes, activation=workload.activation, dtype=dtype)
        theta, v = flat(layers), flat(direction)
        block = np.ascontiguousarray(np.stack([np.roll(v, k) for k in range(BLOCK)], axis=1))
        points = itertools.cycle([theta, theta * np.asarray(0.99, dtype)])
        out = np.empty_like(v)
        objective = fc.Objective(model, X, y, loss=workload.loss, n_threads=threads)
        hessian, ggn = objective.hessian(theta), objective.ggn(theta)
        self.product = lambda: hessian @ v
        self.peak = lambda: fc._engine.measure_fma_peak(dtype, threads)
        return {
            "product": lambda: hessian @ v,
            "product-out": lambda: hessian.product(v, out=out),
            "gradient": lambda: objective.value_and_gradient(next(points)),
            "bind": lambda: objective.hessian(next(points)),
            "ggn": lambda: ggn @ v,
            "quadratic": lambda: hessian.quadratic_form(v),
            "block": lambda: hessian @ block,
        }

    def config(self):
        import fastcurv as fc

        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            fc.show_versions()
        return text.getvalue().rstrip()


class Torch(Contender):
    """Double backward on a kept graph: the graph of the gradient is made once, and run backward per
    vector.
    """

    def build(self, workload, dtype, threads):
        import torch

        torch.set_num_threads(threads)
        X, y, layers, direction = workload.problem(dtype)
        X, y = torch.from_numpy(X), torch.from_numpy(y)
        self.params = [
            torch.from_numpy(p.copy()).requires_grad_() for layer in layers for p in layer
        ]
        other = [(p * 0.99).detach().requires_grad_() for p in self.params]
        points = itertools.cycle([self.params, other])
        v = [torch.from_numpy(p) for layer in direction for p in layer]
        phi = {
            "tanh": torch.tanh,
            "relu": torch.relu,
            "gelu": torch.nn.functional.gelu,
            "sigmoid": torch.sigmoid,
            "softplus": torch.nn.functional.softplus,
        }[workload.activation]
        loss = {
            "mse": torch.nn.functional.mse_loss,
            "cross_entropy": torch.nn.functional.cross_entropy,
        }[workload.loss]

        def value(params):
            a = X
            for i in range(0, len(params), 2):
                a = torch.nn.functional.linear(a if i == 0 else phi(a), params[i], params[i + 1])
            return loss(a, y)

        def gradient():
            params = next(points)
            return torch.autograd.grad(value(params), params)

        def bind(params):
            return torch.autograd.grad(value(params), params, create_graph=True)

        kept = bind(self.params)

        def product():
            return torch.autograd.grad(kept, self.params, grad_outputs=v, retain_graph=True)

        self.product = lambda: np.concatenate([p.detach().numpy().ravel() for p in product()])
        return {"product": product, "gradient": gradient, "bind": lambda: bind(next(points))}


class Jax(Contender):
    """The parts common to both JAX contenders: the loss, compiled gradients, and arrays as lists of
    ``(W, b)``.
    """

    def build(self, workload, dtype, threads):
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", dtype == "float64")
        X, y, layers, direction = workload.problem(dtype)
        X, y, theta, v = jax.tree.map(jnp.asarray, (X, y, layers, direction))
        other = jax.tree.map(lambda p: p * jnp.asarray(0.99, p.dtype), theta)
        points = itertools.cycle([theta, other])
        phi = {
            "tanh": jnp.tanh,
            "relu": jax.nn.relu,
            "gelu": lambda z: jax.nn.gelu(z, approximate=False),
            "sigmoid": jax.nn.sigmoid,
            "softplus": jax.nn.softplus,
        }[workload.activation]

        def value(params, X, y):
            a = X
            for i, (W, b) in enumerate(params):
                a = (a if i == 0 else phi(a)) @ W.T + b
            if workload.loss == "mse":
                return jnp.mean((a - y) ** 2)
            picked = jnp.take_along_axis(a, y[:, None], axis=1)[:, 0]
            return jnp.mean(jax.nn.logsumexp(a, axis=1) - picked)

        both = jax.jit(jax.value_and_grad(value))
        product = self.compiled(jax, lambda p: jax.grad(value)(p, X, y), value, theta, v, X, y)
        self.product = lambda: flat(jax.tree.map(np.asarray, product()))
        return {
            "product": lambda: jax.block_until_ready(product()),
            "gradient": lambda: jax.block_until_ready(both(next(points), X, y)),
        }

    def config(self):
        import jax

        return str(jax.devices()[0])


class JaxLinearize(Jax):
    """``jit(linearize(grad))``: all that depends on theta alone is computed once."""

    def compiled(self, jax, gradient, value, theta, v, X, y):
        _, linear = jax.linearize(gradient, theta)
        program = jax.jit(linear)
        return lambda: program(v)


class JaxJvp(Jax):
    """``jit(jvp(grad))``: forward over reverse, with everything computed again for each vector."""

    def compiled(self, jax, gradient, value, theta, v, X, y):
        def run(p, v, X, y):
            return jax.jvp(lambda q: jax.grad(value)(q, X, y), (p,), (v,))[1]

        program = jax.jit(run)
        return lambda: program(theta, v, X, y)


def torch_problem(workload, dtype):
    """Return a torch module, its data, its loss, and a direction as a list of tensors."""
    import torch

    X, y, layers, direction = workload.problem(dtype)
    phi = {
        "tanh": torch.nn.Tanh,
        "relu": torch.nn.ReLU,
        "gelu": torch.nn.GELU,
        "sigmoid": torch.nn.Sigmoid,
        "softplus": torch.nn.Softplus,
    }[workload.activation]
    loss = {"mse": torch.nn.MSELoss, "cross_entropy": torch.nn.CrossEntropyLoss}[workload.loss]
    parts = []
    for i, (W, b) in enumerate(layers):
        linear = torch.nn.Linear(W.shape[1], W.shape[0], dtype=getattr(torch, dtype))
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W))
            linear.bias.copy_(torch.from_numpy(b))
        parts += ([phi()] if i else []) + [linear]
    v = [torch.from_numpy(p) for layer in direction for p in layer]
    return torch.nn.Sequential(*parts), torch.from_numpy(X), torch.from_numpy(y), loss(), v


class Curvlinops(Contender):
    """``HessianLinearOperator @ v`` with a list of tensors."""

    def build(self, workload, dtype, threads):
        import curvlinops
        import torch

        torch.set_num_threads(threads)
        net, X, y, loss, v = torch_problem(workload, dtype)
        operator = curvlinops.HessianLinearOperator(
            net, loss, list(net.parameters()), [(X, y)], check_deterministic=False
        )
        block = [torch.stack([p.roll(k) for k in range(BLOCK)], dim=-1) for p in v]
        self.product = lambda: np.concatenate([p.detach().numpy().ravel() for p in operator @ v])
        return {"product": lambda: operator @ v, "block": lambda: operator @ block}


class PyHessian(Contender):
    """The product of PyHessian on one batch, whose graph of the gradient is kept."""

    def build(self, workload, dtype, threads):
        import torch

        torch.set_num_threads(threads)
        net, X, y, loss, v = torch_problem(workload, dtype)
        import pyhessian
        from pyhessian.utils import hessian_vector_product

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hessian = pyhessian.hessian(net, loss, data=(X, y), cuda=False)

        def product():
            return hessian_vector_product(hessian.gradsH, hessian.params, v)

        self.product = lambda: np.concatenate([p.detach().numpy().ravel() for p in product()])
        return {"product": product}


CONTENDERS = {
    "fastcurv": Fastcurv,
    "torch": Torch,
    "jax-linearize": JaxLinearize,
    "jax-jvp": JaxJvp,
    "curvlinops": Curvlinops,
    "pyhessian": PyHessian,
}


# Functions that run in the process of one contender


class Worker:
    """The requests that a process can make of its contender, one method each."""

    def __init__(self, name):
        self.contender = CONTENDERS[name]()
        self.calls = {}

    def build(self, workload, dtype, threads):
        self.calls.clear()  # frees the last workload before the next is built
        self.calls = self.contender.build(WORKLOADS[workload], dtype, threads)
        return {"calls": list(self.calls), "answer": fingerprint(self.contender.product())}

    def time(self, call, repeat, clock="perf_counter"):
        run, now = self.calls[call], getattr(time, clock)
        run()  # wakes threads, warms caches
        start = now()
        for _ in range(repeat):
            run()
        return {"seconds": (now() - start) / repeat}

    def peak(self):
        return {"flops": self.contender.peak()}

    def config(self):
        return {"text": self.contender.config()}


def fingerprint(product):
    """Return a few numbers by which products are compared: the norm and random combinations of the
    entries.
    """
    u = np.random.default_rng(1).standard_normal((3, product.size)) / np.sqrt(product.size)
    return [float(np.linalg.norm(product)), *map(float, u @ product.astype(np.float64))]


def unavailable_reason(error):
    """Return why a contender cannot be measured, with the install command of a missing package.

    fastcurv is imported here only, because its threads would compete with those of a peer.
    """
    from fastcurv.common.optional import optional_import

    try:
        with optional_import("its products", "bench"):
            raise error
    except ImportError as missing:
        return str(missing)
    except Exception:
        return f"{type(error).__name__}: {error}"


def serve_requests(Worker, name):
    """Read requests and write answers. Output of the libraries goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(name)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:
            answer = {"error": unavailable_reason(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


# Functions that run in the process of the benchmark


class Unavailable(Exception):
    """Raised if the contender is not installed or failed, with the reason as message."""


class Child:
    """A contender in a process of its own, confined to ``threads`` processors."""

    def __init__(self, name, threads):
        self.name, self.threads = name, threads
        self.process = subprocess.Popen(
            [sys.executable, __file__, name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=dict(os.environ, **thread_variables(threads)),
        )

    def ask(self, **request):
        """Send one request and wait for its answer, for at most `MAX_ANSWER_SECONDS`."""
        limit = threading.Timer(MAX_ANSWER_SECONDS, self.process.kill)
        limit.start()
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            raise Unavailable(f"{self.name}: its process ended") from error
        finally:
            limit.cancel()
        if "error" in answer:
            raise Unavailable(f"{self.name}: {answer['error']}")
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)


def thread_variables(threads):
    names = ("OMP", "OPENBLAS", "MKL", "FASTCURV")
    return {f"{name}_NUM_THREADS": str(threads) for name in names} | {"JAX_PLATFORMS": "cpu"}


def confine_to_processors(threads):
    """Confine the process to the first ``threads`` processors, the only limit that JAX's thread
    pool respects.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


if __name__ == "__main__":
    confine_to_processors(int(sys.argv[2]))
    serve_requests(Worker, sys.argv[1])

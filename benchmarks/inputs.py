"""Derivatives with respect to the inputs, compared with torch.func, compiled JAX, and C.

    python benchmarks/inputs.py
    python benchmarks/inputs.py --sizes 4 64 64 4 --rows 1 100 10000 --rounds 20

A tanh network in float64 on one thread. Jobs: the outputs with their Jacobian, and these with the
Hessian of a weighted sum of outputs. Each contender is a process of its own; they take turns,
and the best round of each counts. "numpy" is the forward pass with tangents, some fifteen lines;
"c" is the file of `fc.to_c`, compiled by cc -O3 -march=native, which takes a row at a time. JAX is
compiled for the shape before it is timed. Libraries that are not installed are left out.
"""

import ctypes
import importlib.util
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import command
import numpy as np

JOBS = ("jacobian", "hessian")


def problem(sizes, rows):
    rng = np.random.default_rng(0)
    layers = [
        (rng.standard_normal((m, k)) / np.sqrt(k), 0.1 * rng.standard_normal(m))
        for k, m in zip(sizes, sizes[1:])
    ]
    return layers, rng.standard_normal((rows, sizes[0])), rng.standard_normal(sizes[-1])


def by_fastcurv(sizes, rows):
    import fastcurv as fc

    layers, X, weights = problem(sizes, rows)
    model = fc.MLP(sizes)
    theta, weights = model.flatten(layers), np.tile(weights, (rows, 1))
    return {
        "jacobian": lambda: model.input_jacobian(theta, X),
        "hessian": lambda: model.input_derivatives(theta, X, weights).hessian,
    }


def by_c(sizes, rows):
    import fastcurv as fc

    layers, X, weights = problem(sizes, rows)
    model = fc.MLP(sizes)
    folder = Path(tempfile.mkdtemp())
    fc.to_c(model, model.flatten(layers), folder / "net.c")
    loops = """
void all_jacobians(int n, const double *x, double *y, double *J, double *work) {
    for (int r = 0; r < n; r++)
        net_jacobian(x + r * NET_D_IN, y + r * NET_D_OUT, J + r * NET_D_IN * NET_D_OUT, work);
}
void all_hessians(int n, const double *x, const double *w, double *y, double *J, double *H,
    double *work) {
    for (int r = 0; r < n; r++)
        net_hessian(x + r * NET_D_IN, w, y + r * NET_D_OUT, J + r * NET_D_IN * NET_D_OUT,
            H + r * NET_D_IN * NET_D_IN, work);
}
"""
    source = folder / "net.c"
    text = source.read_text()
    source.write_text(text + loops)
    flags = ("-O3", "-march=native", "-shared", "-fPIC")
    subprocess.run(["cc", *flags, source, "-o", folder / "net.so", "-lm"], check=True)
    library = ctypes.CDLL(str(folder / "net.so"))
    shutil.rmtree(folder)
    d, m = sizes[0], sizes[-1]
    y, J, H = np.empty((rows, m)), np.empty((rows, m, d)), np.empty((rows, d, d))
    room = int(text.split("_WORK = ")[1].split(" ")[0])
    work = np.empty(room)
    x_, w_, y_, J_, H_, work_ = (
        ctypes.c_void_p(a.ctypes.data) for a in (X, weights, y, J, H, work)
    )

    def jacobian(kept=(X, y, J, work)):
        library.all_jacobians(rows, x_, y_, J_, work_)
        return J

    def hessian(kept=(X, weights, y, J, H, work)):
        library.all_hessians(rows, x_, w_, y_, J_, H_, work_)
        return H

    return {"jacobian": jacobian, "hessian": hessian}


def by_numpy(sizes, rows):
    layers, X, weights = problem(sizes, rows)

    def jacobian():
        a, D = X, np.broadcast_to(np.eye(sizes[0]), (rows, sizes[0], sizes[0]))
        for l, (W, b) in enumerate(layers):
            a, D = a @ W.T + b, W @ D
            if l < len(layers) - 1:
                a = np.tanh(a)
                D = (1 - a * a)[:, :, None] * D
        return D

    def hessian():
        a, D, kept = X, np.broadcast_to(np.eye(sizes[0]), (rows, sizes[0], sizes[0])), []
        for W, b in layers[:-1]:
            a, D = np.tanh(a @ W.T + b), W @ D
            p = 1 - a * a
            kept.append((D, p, -2 * a * p))
            D = p[:, :, None] * D
        H, e = 0.0, np.broadcast_to(weights @ layers[-1][0], a.shape)
        for (D, p, q), (W, _) in zip(kept[::-1], layers[-2::-1]):
            H = H + D.swapaxes(1, 2) @ ((e * q)[:, :, None] * D)
            e = (e * p) @ W
        return H

    return {"jacobian": jacobian, "hessian": hessian}


def by_torch(sizes, rows):
    import torch

    torch.set_num_threads(1)
    layers, X, weights = problem(sizes, rows)
    layers = [(torch.from_numpy(W), torch.from_numpy(b)) for W, b in layers]
    X, weights = torch.from_numpy(X), torch.from_numpy(weights)

    def f(x):
        for l, (W, b) in enumerate(layers):
            x = torch.nn.functional.linear(torch.tanh(x) if l else x, W, b)
        return x

    first = torch.func.vmap(torch.func.jacrev(f))
    second = torch.func.vmap(torch.func.hessian(lambda x: f(x) @ weights))
    return {"jacobian": lambda: first(X), "hessian": lambda: second(X)}


def by_jax(sizes, rows):
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    layers, X, weights = problem(sizes, rows)
    layers, X = jax.tree.map(jnp.asarray, (layers, X))

    def f(layers, x):
        for l, (W, b) in enumerate(layers):
            x = W @ (jnp.tanh(x) if l else x) + b
        return x

    forward = sizes[0] <= sizes[-1]
    slope = (jax.jacfwd if forward else jax.jacrev)(f, argnums=1)
    first = jax.jit(jax.vmap(slope, (None, 0)))
    bend = jax.jacfwd(jax.grad(lambda layers, x: f(layers, x) @ weights, argnums=1), argnums=1)
    second = jax.jit(jax.vmap(bend, (None, 0)))
    return {
        "jacobian": lambda: jax.block_until_ready(first(layers, X)),
        "hessian": lambda: jax.block_until_ready(second(layers, X)),
    }


CONTENDERS = {
    "fastcurv": by_fastcurv,
    "c": by_c,
    "numpy": by_numpy,
    "torch": by_torch,
    "jax": by_jax,
}


def serve_times(pipe, name, sizes, rows):
    """Run as the process of a contender: send its answers, then the time of each job received."""
    try:
        calls = CONTENDERS[name](sizes, rows)
        pipe.send({job: np.asarray(calls[job]()) for job in JOBS})
    except Exception as error:  # a missing library or compiler: the parent leaves it out
        pipe.send(f"{type(error).__name__}: {error}")
        return
    repeats = {}
    for job in iter(pipe.recv, None):
        if job not in repeats:
            began = time.perf_counter()
            calls[job]()
            repeats[job] = max(1, int(0.02 / max(time.perf_counter() - began, 1e-7)))
        began = time.perf_counter()
        for _ in range(repeats[job]):
            calls[job]()
        pipe.send((time.perf_counter() - began) / repeats[job])


def main():
    parser = command.parser(__doc__)
    add = parser.add_argument
    add(
        "--sizes",
        nargs="+",
        type=int,
        default=[4, 64, 64, 4],
        help="numbers of units by layer (default 4 64 64 4)",
    )
    add(
        "--rows",
        nargs="+",
        type=int,
        default=[1, 100, 10000],
        help="numbers of rows of X (default 1 100 10000)",
    )
    add("--rounds", type=int, default=30, help="rounds, of which the fastest counts (default 30)")
    command.add_names_option(parser, "--contenders", CONTENDERS)
    args = parser.parse_args()
    os.environ |= dict.fromkeys(
        ("FASTCURV_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1"
    )
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    with command.run(args) as numbers:
        numbers |= {"cpu": command.cpu_name(), "sizes": args.sizes, "seconds": {}}
        print(f"{numbers['cpu']}, {'-'.join(map(str, args.sizes))}, tanh, float64, one thread")
        for rows in args.rows:
            numbers["seconds"][rows] = measure_jobs(args, rows)
            for job in JOBS:
                times = {name: t[job] for name, t in numbers["seconds"][rows].items()}
                own = times.get("fastcurv", min(times.values()))
                line = ", ".join(
                    f"{name} {1e6 * t:.4g} us ({t / own:.2f})" for name, t in times.items()
                )
                print(f"{rows} rows, {job}: {line}")


def measure_jobs(args, rows):
    """Return the best seconds of each contender and job, which are measured in turns."""
    context, open_pipes, answers = multiprocessing.get_context("spawn"), {}, {}
    for name in args.contenders:
        if name in ("torch", "jax") and importlib.util.find_spec(name) is None:
            print(f"  {name} is left out: it is not installed")
            continue
        command.begin_step(f"{name}, {rows} rows: preparing")
        mine, its = context.Pipe()
        context.Process(target=serve_times, args=(its, name, args.sizes, rows), daemon=True).start()
        its.close()  # so that recv raises EOFError if the process ends
        try:
            answer = mine.recv()
        except EOFError:
            answer = "its process ended"
        if isinstance(answer, str):
            print(f"  {name} is left out: {answer}")
            continue
        open_pipes[name], answers[name] = mine, answer
    first = next(iter(answers.values()))
    for name, answer in answers.items():
        for job in JOBS:
            gap = np.abs(answer[job] - first[job]).max() / np.abs(first[job]).max()
            if not gap < 1e-9:
                raise SystemExit(f"{name} and {next(iter(answers))} differ by {gap:.1e} in {job}")
    best = {name: dict.fromkeys(JOBS, np.inf) for name in open_pipes}
    for _ in range(args.rounds):
        for job in JOBS:
            for name, pipe in open_pipes.items():
                command.begin_step(f"{name}, {rows} rows, {job}")
                pipe.send(job)
                best[name][job] = min(best[name][job], pipe.recv())
    for pipe in open_pipes.values():
        pipe.send(None)
    return best


if __name__ == "__main__":
    main()

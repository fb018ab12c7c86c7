"""First lines of programs that tests run in separate processes."""

NET = """
import os, signal, sys, threading, time
import numpy as np
import fastcurv as fc
from fastcurv import _engine as engine

def drawn(sizes, N, threads=2, seed=0, dtype="float64", **options):
    rng = np.random.default_rng(seed)
    model = fc.MLP(sizes, "tanh", dtype=dtype)
    X, y = rng.standard_normal((N, sizes[0])), rng.standard_normal((N, sizes[-1]))
    ob = fc.Objective(model, X, y, "mse", n_threads=threads, **options)
    return ob, model.init(rng=1), rng.standard_normal(model.n_params).astype(dtype)

TALL, WIDE = ([33, 31, 17, 7], 700), ([129, 131, 131, 257, 33], 65)
"""

"""Memory of a basis that is held for the next run: same numbers, freed with its operator."""

import gc
import threading
import weakref

import numpy as np

import fastcurv as fc
from fastcurv.krylov.lanczos import LEAST, held_rows

from .spectra import SPECTRA, Prescribed


def test_runs_in_held_memory_give_the_same_numbers(rng):
    spectrum = rng.standard_normal(4000)
    fresh, used = Prescribed(spectrum, seed=0), Prescribed(spectrum, seed=0)
    fc.spectral_density(used, 2, 60, seed=5)
    fc.eigsh(used, 3, "LA", seed=6, tol=1e-4)
    for ask in (
        lambda op: fc.eigsh(op, 4, "BE", seed=1, tol=1e-4).vectors,
        lambda op: fc.spectral_density(op, 3, 40, seed=1).nodes,
    ):
        first = ask(used)
        kept = first.copy()
        assert np.array_equal(first, ask(fresh))
        ask(used)
        assert np.array_equal(first, kept), "no result lies in memory that is used again"


def test_memory_is_held_once_and_goes_with_its_operator():
    op = Prescribed(SPECTRA["uniform"](np.random.default_rng(0)), seed=0)
    shape = (LEAST // 8 // 300 + 2, 300)
    double = np.dtype(float)
    with held_rows(op, shape, double) as first, held_rows(op, shape, double) as second:
        assert not np.shares_memory(first, second), "two at once have memory of their own"
    with held_rows(op, (5, 300), double) as again:
        assert np.shares_memory(again, first) or np.shares_memory(again, second)
    with held_rows(op, (5, 300), np.dtype(np.float32)) as other:
        assert other.dtype == np.float32 and other.shape == (5, 300)
    gone = weakref.ref(again)
    del first, second, again, other, op
    gc.collect()
    assert gone() is None


def test_threads_on_one_operator(rng):
    op = Prescribed(rng.standard_normal(3000), seed=0)
    alone = fc.eigsh(op, 2, "LA", seed=0, tol=1e-4).values
    found = [None] * 4

    def work(i):
        found[i] = fc.eigsh(op, 2, "LA", seed=0, tol=1e-4).values

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(np.array_equal(values, alone) for values in found)

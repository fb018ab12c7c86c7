"""Layouts of plans for tests, and the least memory that a plan needs."""

import re
from contextlib import contextmanager

import fastcurv as fc
from fastcurv import _engine as engine

LAYOUTS = {  # lines of samples across, rows that pack nothing; -1: as is best
    "the best": (-1, -1),
    "samples as rows": (0, 0),
    "nothing packed": (0, 64),
}


def lay_out(across, unpacked=-1, shared=False, folds=-1):
    """Set the layout of plans created from now on. `shared` means one panel for all threads;
    `folds` stores phi and phi' in one number where possible (1) or separately (0).
    """
    engine.force_transposed(across, shared)
    engine.force_unpacked(unpacked)
    engine.force_packed_pairs(folds)


@contextmanager
def laid_out(across=-1, unpacked=-1, shared=False, folds=-1):
    """Set the layout of plans created inside the context, and restore the default layout
    afterwards.
    """
    lay_out(across, unpacked, shared, folds)
    try:
        yield
    finally:
        lay_out(-1)


def least_memory(ask):
    """Return the least memory in bytes that a plan needs, read from the error message for less;
    `ask` creates the plan within a limit.
    """
    try:
        ask(1)
    except ValueError as refusal:
        return int(re.match(r"memory must be at least (\d+) bytes", str(refusal))[1])
    raise AssertionError("one byte of memory was enough")


def limited(ob, memory):
    """Return an objective with equal data and another `memory`."""
    how = ob.loss, ob.l2, ob.sample_weight, ob.n_threads, memory
    return fc.Objective(ob.model, ob.X, ob.y, *how, l2_biases=ob.l2_biases)

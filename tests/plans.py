"""Memory layouts of plans for tests, and the smallest memory that a plan needs."""

import re
from contextlib import contextmanager

import fastcurv as fc
from fastcurv import _engine as engine

LAYOUTS = {  # (across, unpacked) of `lay_out`
    "the best": (-1, -1),
    "samples as rows": (0, 0),
    "nothing packed": (0, 64),
}


def lay_out(across, unpacked=-1, shared=False, folds=-1):
    """Set the layout of plans that are created from now on. The value -1 means the engine's own
    choice.

    `across` is the number of cache lines of samples in a panel of the transposed layout, or 0 for
    samples as rows. Up to `unpacked` samples, plans compute layer by layer without packing
    matrices. With `shared`, all threads share one panel. `folds` stores phi and phi' packed into
    one number (1) or separately (0).
    """
    engine.force_transposed_layout(across, shared)
    engine.force_unpacked_weights(unpacked)
    engine.force_packed_pairs(folds)


@contextmanager
def laid_out(across=-1, unpacked=-1, shared=False, folds=-1):
    """Set the layout of plans that are created inside the context, as `lay_out` does, and restore
    the engine's own choice afterwards.
    """
    lay_out(across, unpacked, shared, folds)
    try:
        yield
    finally:
        lay_out(-1)


def least_memory(ask):
    """Return the smallest memory in bytes that a plan accepts, parsed from the error for less.
    `ask(memory)` creates the plan.
    """
    try:
        ask(1)
    except ValueError as refusal:
        return int(re.match(r"memory must be at least (\d+) bytes", str(refusal))[1])
    raise AssertionError("one byte of memory was enough")


def limited(ob, memory):
    """Return an objective with the data and options of `ob` and another `memory` limit."""
    how = ob.loss, ob.l2, ob.sample_weight, ob.n_threads, memory
    return fc.Objective(ob.model, ob.X, ob.y, *how, l2_biases=ob.l2_biases)

"""Plans as tests ask for them: how they are laid out, and the least memory that does."""

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
    """Plans are laid out so from here on; shared: one panel for all threads; folds: phi and phi'
    are kept in one number where they can be, 1, or in two, 0.
    """
    engine.force_transposed(across, shared)
    engine.force_unpacked(unpacked)
    engine.force_pairs(folds)


@contextmanager
def laid_out(across=-1, unpacked=-1, shared=False, folds=-1):
    """Plans made inside are laid out so, or as is said there; those made after as is best."""
    lay_out(across, unpacked, shared, folds)
    try:
        yield
    finally:
        lay_out(-1)


def least_memory(ask):
    """Bytes that a plan needs, by the refusal of less: `ask` makes it, bounded by what it is
    given.
    """
    try:
        ask(1)
    except ValueError as refusal:
        return int(re.match(r"memory=1 bytes is not enough: (\d+) are needed", str(refusal))[1])
    raise AssertionError("one byte of memory was enough")


def limited(ob, memory):
    """The same objective with another `memory`."""
    how = ob.loss, ob.l2, ob.sample_weight, ob.n_threads, memory
    return fc.Objective(ob.model, ob.X, ob.y, *how, l2_biases=ob.l2_biases)

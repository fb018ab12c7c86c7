# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The passes of Pearlmutter's R-operator over a table of kernels.

    forward      z = a W' + b                     a = phi(z)             [+ the layer's input, if residual]
    backward     e_below = delta W  [+ e]         delta = e * phi'(z)    dW = delta' a_below     db = sum of delta's rows
    R-forward    rz = ra W' + a V' + vb           ra = phi'(z) * rz      [+ the input's ra]
    loss         rdelta = (d2 loss / dz2) rz      in the last layer
    R-backward   rdW = rdelta' a + delta' ra      rdb = sum of rdelta's rows
                 re_below = rdelta W + delta V [+ re]      rdelta = re * phi'(z) + e * phi''(z) * rz

Design notes

A. One text for both dtypes: the passes move byte pointers and never look at a number; the table of the dtype does.
B. A plan owns one block of memory, laid out once. `lay_out` walks it twice: to measure it, and to hand out the pieces.
C. Rows come in chunks (what `memory=` lets us keep the state of), and a chunk is served in one of two ways. Tall: panels of
   rows small enough for the second-level cache, each taken through all layers by one thread, sums kept per group of panels.
   Wide: the whole chunk layer by layer, every product cut into items over all threads.
D. Fixed at theta and kept: W packed both ways, a, phi', e * phi'', delta, and what the loss needs. Fixed at v: V packed both
   ways. Everything else is scratch.
E. No result depends on the number of threads: items and groups are cut by sizes alone, sums are added in a fixed order.
"""
from libc.math cimport sqrt
from libc.stdint cimport int32_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from cpython.buffer cimport PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals, PyErr_Occurred
import os
import threading
import numpy as np

include "tables.pxi"
include "blas.pxi"
include "signals.pxi"
include "arena.pxi"
include "passes.pxi"
include "across.pxi"
include "stacks.pxi"
include "serve.pxi"
include "layout.pxi"
include "data.pxi"
include "plan.pxi"
include "batch_norm.pxi"
include "rows.pxi"
include "probe.pxi"

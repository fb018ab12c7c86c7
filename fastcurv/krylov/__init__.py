"""Krylov subspaces and the problems solved in them: recurrences, bases, small projected problems.

The subpackage works on linear operators alone. Its callers choose the eigenpairs or steps to
compute.
"""

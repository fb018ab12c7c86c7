"""Krylov subspaces and the problems solved in them: recurrences, bases, small projected problems.

Works on linear operators alone; which eigenpairs or steps are wanted is decided by the callers.
"""

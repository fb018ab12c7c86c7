"""Krylov subspaces and what is solved in them: recurrences, bases, small problems.

Knows operators, owns no policy.
"""

"""Modules used by all subpackages: checks, errors, files, dense linear algebra, threads,
progress.
"""

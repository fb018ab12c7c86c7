"""Certificates of critical points that other programs can check: the writer and the checker."""

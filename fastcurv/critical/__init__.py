"""Verdicts on critical points, with their evidence."""

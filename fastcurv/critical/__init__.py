"""Search for critical points, and verdicts on them with their evidence."""

"""Why training failed: causes with advice, samples of critical points, checks of a gradient."""

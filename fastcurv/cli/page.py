"""The report on one trained network: training, verdict, spectrum."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import fastcurv as fc

from .. import plots
from .output import describe, extremes, state
from .recipe import SavedRun
from .report import Report


def run_page(objective: Any, saved: SavedRun, data: Any, point: Any, args: Namespace) -> Report:
    """The page of `fastcurv report`, not yet written."""
    hessian = objective.hessian(saved.theta)
    pairs = extremes(hessian, 5, args.seed, args.progress)
    density = fc.spectral_density(hessian, n_probes=args.probes, n_steps=args.steps, seed=args.seed)
    page = Report(f"Curvature of a network trained on {data.name}")
    page.text(describe(objective, data)).text(state(objective, saved.theta, data))
    page.section("Verdict").verdict(point)
    page.section("Spectrum").figure(
        plots.density(density), f"Density of the Hessian's {objective.n_params} eigenvalues."
    )
    return page.table(["eigenvalue", "residual"], zip(pairs.values, pairs.residuals))

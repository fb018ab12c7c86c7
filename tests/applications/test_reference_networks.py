"""The reference networks: the checker confirms their files, and their values are those of the
library.
"""

import runpy
from pathlib import Path

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.applications.certificate.check_certificate import check_file

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "reference"
reference = runpy.run_path(str(FOLDER / "load.py"))
NAMES = reference["names"]()
every_network = pytest.mark.parametrize("name", NAMES)


def test_there_are_sixty_networks_of_three_levels():
    networks = [reference["load"](name) for name in NAMES]
    assert len(networks) == 60
    assert {net.level for net in networks} == {"lower", "average", "higher"}
    assert {net.loss for net in networks} >= {"mse", "cross_entropy", "poisson"}
    counts = {net.claim.get("negative") for net in networks}
    assert counts >= set(range(11)), "saddles of index 1 to 10"
    sizes = [len(net.theta) for net in networks]
    assert min(sizes) <= 5 and 100 <= max(sizes) <= 125


@pytest.mark.by_day(share=1 / 6)
@every_network
def test_the_checker_confirms_the_file(name):
    status, sentence = check_file(str(FOLDER / "networks" / f"{name}.json"))
    assert status == 0, sentence


@pytest.mark.parametrize("name", ["three-layers", "skips"])
def test_refits_without_a_row_are_exact(name):
    """Losses of left-out rows equal the certified ones to 1e-9."""
    net = reference["load"](name)
    model = fc.MLP(net.sizes, net.activations, bias=net.bias, residual=any(net.skips))
    ob = fc.Objective(model, net.X, net.y, net.loss, net.l2, l2_biases=net.l2_biases)
    out = fc.leave_one_out(ob, net.theta, exact=True)
    certified = ~np.isnan(net.leave_one_out)  # NaN where the refit was not certified
    wanted = net.leave_one_out[certified]
    gaps = np.abs(net.sizes[-1] * out.losses[certified] - wanted)
    assert len(wanted) and out.at_minimum[certified].all()
    assert (gaps <= 1e-9 * wanted).all()


@pytest.mark.by_day(share=1 / 6)
@every_network
def test_the_values_are_those_of_the_library(name):
    """The library's loss, gradient, products and eigenvalues differ from the certified ones by at
    most 1e-11 of the size of the numbers that are added.
    """
    net = reference["load"](name)
    model = fc.MLP(net.sizes, net.activations, bias=net.bias, residual=any(net.skips))
    ob = fc.Objective(
        model, net.X, net.y, net.loss, net.l2, net.sample_weight, l2_biases=net.l2_biases
    )
    assert list(model.skips) == net.skips
    assert abs(ob.value(net.theta) - net.value) <= 1e-11 * net.value
    H = ob.hessian(net.theta)
    scale = np.abs(net.eigenvalues).max()
    size = scale * (1 + np.linalg.norm(net.theta))
    assert np.linalg.norm(ob.gradient(net.theta) - net.gradient) <= 1e-11 * size
    lengths = np.linalg.norm(net.vectors, axis=0)
    errors = np.linalg.norm(H @ net.vectors - net.products, axis=0)
    assert (errors <= 1e-11 * scale * lengths).all()
    assert np.abs(fc.eigvalsh(H) - net.eigenvalues).max() <= 1e-11 * scale
    assert abs(net.eigenvalues.sum() - net.trace) <= 1e-11 * scale * len(net.theta)

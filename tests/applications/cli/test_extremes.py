"""Extreme eigenvalues in the shell: the output lists all copies of repeated eigenvalues, or states
that some may be missing.
"""

import json
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sklearn")

import fastcurv as fc  # noqa: E402
from fastcurv.applications.cli import commands, page  # noqa: E402
from fastcurv.applications.cli.parser import main  # noqa: E402
from fastcurv.applications.cli.recipe import TrainingRecipe, save_run  # noqa: E402
from fastcurv.applications.cli.report import Report  # noqa: E402
from fastcurv.applications.plots import spectrum  # noqa: E402

SHORT = ["--probes", "2", "--steps", "5", "--quiet"]


@pytest.fixture
def run(tmp_path):
    """Return the path of a saved run on iris with theta = 0, most of whose eigenvalues are
    repeated.
    """
    model = fc.MLP([4, 6, 3], "tanh")
    recipe = TrainingRecipe("iris", hidden=(6,), loss="cross_entropy", l2=1e-2)
    return save_run(tmp_path / "zeros.npz", recipe, model, np.zeros(model.n_params))


def test_repeated_eigenvalues_of_small_matrices_are_all_found():
    rng = np.random.default_rng(0)
    values = np.sort(np.r_[rng.uniform(-3, 0, 100).repeat(2), 40, 50, 60])
    H = np.diag(values)
    pairs = spectrum.extreme_eigenpairs(H, 3, 0)
    assert pairs.missed_within == 0 and pairs.converged.all() and "copies" not in repr(pairs)
    assert np.allclose(pairs.values, [*values[:3], *values[-3:]], atol=1e-12)
    assert np.allclose(H @ pairs.vectors, pairs.vectors * pairs.values, atol=1e-12)
    assert pairs.residuals.max() <= 1e-11 and pairs.n_products == 0  # by a dense decomposition
    seen = fc.eigsh(H, k=6, which="BE", tol=1e-6, probe=False, seed=0)
    assert np.abs(seen.values - pairs.values).max() > 1e-6  # one start vector misses copies


@pytest.mark.parametrize("k", [1, 2, 3, 9])
def test_overlapping_ends_list_each_eigenvalue_once(k):
    pairs = spectrum.extreme_eigenpairs(np.diag([-2.0, 0.0, 1.0, 1.0, 5.0]), k, 0)
    wanted = {1: [-2, 5], 2: [-2, 0, 1, 5]}.get(k, [-2, 0, 1, 1, 5])
    assert np.allclose(pairs.values, wanted, atol=1e-14)
    assert pairs.vectors.shape == (5, len(wanted)) and len(pairs.residuals) == len(wanted)


def test_spectrum_computes_the_ends_of_small_matrices_directly(run, capsys):
    assert main(["spectrum", str(run), "-k", "8", "--json", *SHORT]) == 0
    said = json.loads(capsys.readouterr().out)
    recipe = TrainingRecipe("iris", hidden=(6,), loss="cross_entropy", l2=1e-2)
    exact = fc.eigvalsh(recipe.build_objective().hessian(np.zeros(51)))
    assert np.allclose(said["eigenvalues"], [*exact[:8], *exact[-8:]], atol=1e-12)
    assert said["missed_within"] == 0 and said["copies"] is None
    assert said["n_products"] == 2 * 5


def test_unknown_standard_errors_are_null_in_json(run, capsys, monkeypatch):
    found = fc.spectral_density

    def density_without_errors(*a, **b):
        d = found(*a, **b)
        return replace(d, stderr=np.full(len(d.grid), np.nan))

    monkeypatch.setattr(commands.fc, "spectral_density", density_without_errors)
    assert main(["spectrum", str(run), "-k", "2", "--json", *SHORT]) == 0
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert set(said["stderr"]) == {None} and said["grid"][0] is not None


@pytest.mark.parametrize(
    ("missed_within", "words", "told"),
    [
        (np.inf, "missed copies of multiple eigenvalues not excluded", None),
        (1e-3, "copies excluded beyond 0.001, with an error probability of 5%", 1e-3),
        (0.0, None, 0.0),
    ],
)
def test_output_says_if_copies_of_eigenvalues_may_be_missing(
    missed_within, words, told, run, capsys, monkeypatch
):
    found = spectrum.extreme_eigenpairs
    monkeypatch.setattr(commands, "PLOT_DENSE_MAX_N", 10)
    monkeypatch.setattr(
        commands, "extreme_eigenpairs", lambda *a: replace(found(*a), missed_within=missed_within)
    )
    assert main(["spectrum", str(run), "-k", "2", "--json", *SHORT]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["missed_within"] == told and said["copies"] == words
    assert main(["spectrum", str(run), "-k", "2", *SHORT]) == 0
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if " products" in line)
    assert line.split(" products")[1] == (f", {words}" if words else "")


@pytest.mark.usefixtures("undrawn")
def test_reports_say_if_copies_of_eigenvalues_may_be_missing(monkeypatch):
    pytest.importorskip("matplotlib")
    ob = fc.Objective(fc.MLP([4, 6, 3]), np.eye(4), np.arange(4) % 3, "cross_entropy", l2=0.1)
    theta = np.zeros(ob.n_params)
    hessian, point = ob.hessian(theta), fc.classify(ob, theta, seed=0)
    args = Namespace(probes=2, steps=5, seed=0, progress=False)
    by_products = replace(spectrum.all_eigenpairs(hessian), missed_within=np.inf)
    monkeypatch.setattr(page, "extreme_eigenpairs", lambda *_: by_products)
    for below in (10, 60):
        monkeypatch.setattr(page, "PAGE_DENSE_MAX_N", below)
        made = Report("r")
        spent = page._add_spectrum(made, hessian, point, args)
        said = "copies of multiple eigenvalues not excluded" in made.to_html()
        assert said == (below == 10) and spent[1][:2] == ["eigenvalues", 0]

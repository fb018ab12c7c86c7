"""A checkpoint that no run has saved is refused in one sentence, whatever is wrong with it."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.common.files import read_tensors, write_tensors

OB = fc.Objective(fc.MLP([2, 3, 1]), np.eye(2), [0.0, 1.0], "mse")
OPTIONS = {"sgd": {"batch_size": 1}, "adam": {"batch_size": 1}}


@pytest.fixture
def saved(tmp_path):
    """Save a run of a method, change what it holds, and go on with it."""

    def go_on(method, change, bits=np.random.PCG64):
        path, options = tmp_path / "run", OPTIONS.get(method, {}) | {"verdict": False}
        theta, rng = OB.model.init(seed=0), np.random.Generator(bits(1))
        fc.minimize(OB, theta, method, checkpoint=path, max_iter=3, seed=rng, **options)
        arrays, facts = read_tensors(path)
        change(arrays, facts)
        write_tensors(path, arrays, facts)
        return fc.minimize(OB, None, method, resume=path, max_iter=6, **options)

    return go_on


def put(where, name, value):
    """A change of one entry: `where` is "arrays", "facts" or a part of the facts."""

    def change(arrays, facts):
        (arrays if where == "arrays" else facts if where == "facts" else facts[where])[name] = value

    return change


BAD = {
    "facts": ("adam", put("facts", "run", [1]), "no facts of a run"),
    "time": ("adam", put("run", "elapsed", -1.0), "time elapsed"),
    "shape": ("adam", put("arrays", "run.best", np.zeros(4)), "'best' of a run is no vector of 13"),
    "dtype": (
        "adam",
        put("arrays", "run.best", np.zeros(13, np.float32)),
        "'best' of a run is no vector",
    ),
    "NaN": ("adam", put("arrays", "run.best", np.full(13, np.nan)), "'best' of a run holds NaN"),
    "rows": ("adam", put("arrays", "run.rows", np.array([0, 2])), "its rows"),
    "float rows": ("adam", put("arrays", "run.rows", np.array([0.0])), "its rows"),
    "history": ("adam", put("arrays", "run.history.loss", np.zeros(9)), "history of loss"),
    "counts": ("adam", put("arrays", "run.history.iteration", np.full(4, 1e300)), "no counts"),
    "method": (
        "trust-region",
        put("method_facts", "radius", "wide"),
        "radius of this method is 'wide'",
    ),
    "negative": (
        "trust-region",
        put("method_facts", "radius", -1.0),
        "radius of this method is negative",
    ),
    "no facts": ("trust-region", put("facts", "method_facts", {}), "no facts of this method"),
    "average": (
        "adam",
        put("arrays", "method.average", np.zeros(2)),
        "'average' of this method is no vector",
    ),
    "missing": (
        "adam",
        lambda arrays, _: arrays.pop("method.squares"),
        "'squares' of this method is missing",
    ),
    "infinite": ("adam", put("arrays", "method.squares", np.full(13, np.inf)), "holds NaN"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_no_run_has_saved_is_refused(name, saved):
    method, change, words = BAD[name]
    with pytest.raises(ValueError, match=f"damaged: .*{words}") as error:
        saved(method, change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key.pop(),
        lambda key: key.__setitem__(0, 0.5),
        lambda key: key.__setitem__(0, -1),
        lambda key: key.__setitem__(0, 1 << 32),
    ],
)
def test_a_generator_in_no_state_of_its_kind_is_refused(change, saved):
    def damage(arrays, facts):
        change(facts["run"]["rng"]["state"]["key"])

    with pytest.raises(ValueError, match="has no such state"):
        saved("sgd", damage, np.random.MT19937)
    with pytest.raises(ValueError, match="has no such state"):
        saved("sgd", lambda _, facts: facts["run"]["rng"].update(has_uint32=2))


def test_what_is_whole_goes_on(saved):
    """So the refusals above are of the change alone; a run without a best point has none."""
    assert saved("adam", lambda *_: None).nit == 6
    assert saved("adam", lambda arrays, _: arrays.pop("run.best")).nit == 6
    assert saved("sgd", lambda *_: None, np.random.MT19937).nit == 6

"""Models saved and loaded: bit for bit, or one sentence."""

import json

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.common.files import read_tensors, write_tensors

MODELS = [
    fc.MLP([3, 4, 2]),
    fc.MLP([3, 4, 4, 2], ["relu", "gelu"], bias=False, residual=True, dtype="float32"),
    fc.MLP([3, 4, 2], "elu", batch_norm=True),
    fc.MLP([3, 1], bias=False),
]


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_there_and_back(model, tmp_path):
    theta, path = model.init(seed=3), tmp_path / "net.safetensors"
    fc.save(path, model, theta)
    again, same = fc.load(path)
    assert again == model and same.dtype == theta.dtype and np.array_equal(theta, same)
    assert same.flags.writeable
    fc.save(str(path), model, model.unflatten(theta))
    assert np.array_equal(fc.load(str(path))[1], theta)


def test_what_may_be_saved(tmp_path):
    model = MODELS[0]
    theta = model.init(seed=0)
    for call, kind in (
        (lambda: fc.save(tmp_path / "a", "model", theta), TypeError),
        (lambda: fc.save(tmp_path / "a", model, theta[:-1]), ValueError),
        (lambda: fc.save(tmp_path / "a", model, theta * np.nan), ValueError),
    ):
        with pytest.raises(kind):
            call()
    assert not list(tmp_path.iterdir())


def spoil(path, change):
    """The file again with its arrays and facts changed."""
    arrays, facts = read_tensors(path)
    change(arrays, facts)
    write_tensors(path, arrays, facts)


@pytest.mark.parametrize(
    "change",
    [
        lambda a, f: f.update(sizes=[3, 5, 2]),
        lambda a, f: f.update(sizes=[3, 10**18, 2]),
        lambda a, f: f.update(sizes=[3, 10**400, 2]),
        lambda a, f: f.update(sizes="342"),
        lambda a, f: f.update(sizes=[3, 4.0, 2]),
        lambda a, f: f.update(sizes=[3, True, 2]),
        lambda a, f: f.update(sizes={}),
        lambda a, f: f.update(sizes=None),
        lambda a, f: f.update(activation=["__import__('os').system('true')"]),
        lambda a, f: f.update(activation="tanh"),
        lambda a, f: f.update(activation=[["tanh"]]),
        lambda a, f: f.update(dtype="float16"),
        lambda a, f: f.update(dtype="float32"),
        lambda a, f: f.update(dtype=["float64"]),
        lambda a, f: f.update(bias=1),
        lambda a, f: f.update(bias=False),
        lambda a, f: f.update(batch_norm=True),
        lambda a, f: f.update(format="fastcurv.MLP 2"),
        lambda a, f: f.update(more=1),
        lambda a, f: f.pop("residual"),
        lambda a, f: f.clear(),
        lambda a, f: a.pop("layers.0.bias"),
        lambda a, f: a.update(more=np.zeros(3)),
        lambda a, f: a.update({"layers.0.weight": np.zeros((3, 4))}),
        lambda a, f: a.update({"layers.0.weight": np.zeros((4, 3), int)}),
        lambda a, f: a.update({"layers.0.weight": np.full((4, 3), np.nan)}),
    ],
)
def test_claims_are_checked(change, tmp_path):
    path = tmp_path / "net.safetensors"
    fc.save(path, MODELS[0], MODELS[0].init(seed=0))
    spoil(path, change)
    with pytest.raises(ValueError) as caught:
        fc.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_facts_of_other_files(tmp_path):
    path = tmp_path / "net.safetensors"
    write_tensors(path, {"theta": np.zeros(3)}, json.loads('{"what": "run"}'))
    with pytest.raises(ValueError, match="wanted a file written by fastcurv.save"):
        fc.load(path)
    write_tensors(path, {"theta": np.zeros(3)})
    with pytest.raises(ValueError, match="wanted a file written by fastcurv.save"):
        fc.load(path)


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "NET.PT"])
@pytest.mark.parametrize("head", [b"PK\x03\x04", b"\x80\x02\x8a\x0a"])
def test_a_file_of_torch_is_told_its_way_in(name, head, tmp_path):
    (tmp_path / name).write_bytes(head + bytes(60))
    with pytest.raises(ValueError, match=r"fc.from_torch\(torch.load\(path\), activation=...\)"):
        fc.load(tmp_path / name)

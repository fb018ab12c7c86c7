"""Weights and models that the converters do not support are rejected with a reason."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.applications.convert.sklearn import LayerStack

from ...network.test_refusals import EYE, assert_rejected


def build_stack(*steps):
    """Return a LayerStack after calling its methods in order. Each of `steps` is a tuple of a
    method's name and its arguments.
    """
    made = LayerStack()
    for name, *arguments in steps:
        getattr(made, name)(*arguments)
    return made


LINEAR = ("add_linear", EYE, np.zeros(2), "first")
STACKS = {
    "scaled input": ([("add_affine", np.ones(3), np.zeros(3), "scale"), LINEAR], "takes, got 3"),
    "scaled output": (
        [LINEAR, ("add_affine", np.ones(3), np.zeros(3), "s")],
        "s must have 2 features, got 3",
    ),
    "norm first": (
        [("add_batch_norm", np.ones(2), np.zeros(2), 1e-5, "n")],
        "n that does not follow",
    ),
    "norm eps": ([LINEAR, ("add_batch_norm", np.ones(2), np.zeros(2), 1e-3, "n")], "eps=0.001"),
    "norm size": (
        [LINEAR, ("add_batch_norm", np.ones(3), np.zeros(3), 1e-5, "n")],
        r"scale and shift of n must have shape .2,., got .3,. and .3,.",
    ),
    "softmax first": ([("add_softmax", "softmax")], "softmax that does not follow"),
    "axes": ([("add_linear", np.ones((2, 2, 2)), None, "cube")], "must have 2 axes"),
}


@pytest.mark.parametrize("name", STACKS)
def test_layers_that_do_not_form_a_stack_are_rejected(name):
    steps, words = STACKS[name]
    assert_rejected(lambda: build_stack(*steps), ValueError, words)


@pytest.mark.parametrize(
    "layers, named", [(["0", "0.running_mean"], "0.running_mean"), (["b", "a"], "a, b sorted")]
)
def test_state_dicts_without_an_order_of_layers_are_rejected(layers, named):
    state = {}
    for name in layers:
        state |= {name: np.zeros(3)} if "." in name else {
            f"{name}.weight": np.ones((3, 3)), f"{name}.bias": np.zeros(3)
        }  # fmt: skip
    with pytest.raises(ValueError, match=named):
        fc.from_torch(dict(sorted(state.items())), activation="tanh")


def test_a_state_dict_sorted_by_name_has_the_order_of_its_numbers():
    sizes = [3, *range(4, 15), 1]
    model = fc.MLP(sizes, "tanh")
    theta = model.init(rng=0)
    state = {}
    for l, (W, b) in enumerate(model.unflatten(theta)):
        state |= {f"{2 * l}.weight": W.copy(), f"{2 * l}.bias": b.copy()}
    again, same = fc.from_torch(dict(sorted(state.items())), activation="tanh")
    assert again == model and np.array_equal(same, theta)


def test_versions_of_onnx_that_read_other_files_are_rejected(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", SimpleNamespace(__version__="1.15.0"))
    with pytest.raises(ImportError, match=r"onnx must be at least 1.16, got 1.15.0.*upgrade"):
        fc.from_onnx("model.onnx")


@pytest.mark.parametrize(
    "field, value, words",
    [("activation", "swish", "activation 'swish'"), ("out_activation_", "relu", "output")],
)
def test_unsupported_estimators_are_rejected(field, value, words):
    class OtherEstimator:
        activation, out_activation_ = "tanh", "identity"
        coefs_, intercepts_ = [np.ones((2, 3)), np.ones((3, 1))], [np.zeros(3), np.zeros(1)]

        def get_params(self):
            return {}

        def partial_fit(self, X, y):
            return self

    assert list(fc.from_sklearn(OtherEstimator())[0].sizes) == [2, 3, 1]
    odd = OtherEstimator()
    setattr(odd, field, value)
    assert_rejected(lambda: fc.from_sklearn(odd), ValueError, words)

"""Names of activations in other libraries, with the settings for which they are the same functions
as those of this library.
"""

from __future__ import annotations

from typing import Any

# Key: a library. Value: a table from its names (classes of torch, nodes of ONNX, strings of
# scikit-learn) to the name here and the settings of the same function.
ACTIVATIONS_IN_LIBRARY: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "torch": {
        "Identity": ("identity", {}),
        "ReLU": ("relu", {}),
        "LeakyReLU": ("leaky_relu", {"negative_slope": 0.01}),
        "Tanh": ("tanh", {}),
        "Sigmoid": ("sigmoid", {}),
        "Softplus": ("softplus", {"beta": 1.0, "threshold": 20.0}),
        "SiLU": ("silu", {}),
        "GELU": ("gelu", {"approximate": "none"}),
        "ELU": ("elu", {"alpha": 1.0}),
    },
    "onnx": {
        "Relu": ("relu", {}),
        "LeakyRelu": ("leaky_relu", {"alpha": 0.01}),
        "Tanh": ("tanh", {}),
        "Sigmoid": ("sigmoid", {}),
        "Softplus": ("softplus", {}),
        "Swish": ("silu", {"alpha": 1.0}),
        "Gelu": ("gelu", {"approximate": b"none"}),
        "Elu": ("elu", {"alpha": 1.0}),
    },
    "sklearn": {
        "identity": ("identity", {}),
        "relu": ("relu", {}),
        "tanh": ("tanh", {}),
        "logistic": ("sigmoid", {}),
    },
}
# Key: a name here. Value: the class of torch.
TORCH_CLASSES = {ours: theirs for theirs, (ours, _) in ACTIVATIONS_IN_LIBRARY["torch"].items()}

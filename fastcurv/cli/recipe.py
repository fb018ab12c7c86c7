"""A trained network on disk, with all that is needed to build its objective again: one ``.npz``
file.
"""

import io
import json
from dataclasses import asdict, dataclass

import numpy as np

from ..files import write_atomically
from ..network.mlp import MLP
from ..network.objective import Objective
from .datasets import load_dataset


@dataclass(frozen=True)
class Recipe:
    """What a training run was made from; ``data`` is a data set's name or a file's path."""

    data: str
    hidden: tuple = (32, 16)
    activation: str = "tanh"
    residual: bool = False
    batch_norm: bool = False
    dtype: str = "float64"
    l2: float = 1e-3
    seed: int = 0

    def dataset(self):
        return load_dataset(self.data, seed=self.seed)

    def objective(self, data=None, n_threads=None):
        """The objective over the training samples."""
        data = self.dataset() if data is None else data
        sizes = [data.X.shape[1], *self.hidden, data.n_outputs]
        shape = {"residual": self.residual, "batch_norm": self.batch_norm, "dtype": self.dtype}
        model = MLP(sizes, activation=self.activation, **shape)
        return Objective(model, data.X, data.y, loss=data.loss, l2=self.l2, n_threads=n_threads)


def save_run(path, recipe, theta):
    """Write parameters and recipe, the whole file or none of it. Returns the path."""
    file = io.BytesIO()
    np.savez(file, theta=theta, recipe=json.dumps(asdict(recipe)))
    return write_atomically(path, file.getvalue())


def load_run(path, data=None):
    """Read back what `save_run` wrote.

    Parameters
    ----------
    path : str or path
    data : str or None
        Another data set or file in place of the recorded one.

    Returns
    -------
    Recipe, ndarray
        The recipe and ``theta (n,)``.

    Raises
    ------
    ValueError
        Where the file is not a saved run.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            theta, facts = arrays["theta"], json.loads(str(arrays["recipe"]))
        facts["hidden"] = tuple(facts["hidden"])
        recipe = Recipe(**(facts | ({} if data is None else {"data": str(data)})))
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {path}: make one with 'fastcurv train'") from error
    except (KeyError, TypeError, ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not a run that 'fastcurv train' saved: {error}") from error
    return recipe, theta

"""A change of a training run that corrects a cause of failure: as a record, as the source of a
Python call, or applied.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ...common.checks import is_sparse
from ...network.mlp import MLP
from ...network.objective import Objective
from ...optimize.escape import escape
from ...optimize.minimize import minimize

# the new X and y as Python expressions; {X} and {y} are the rows of nonzero weight
DATA_EXPRESSIONS = {
    None: "ob.{name}",
    "standardized": "(ob.{name} - {rows}.mean(0)) / ({rows}.std(0) + ({rows}.std(0) == 0))",
    # Scaling preserves the zeros of a sparse matrix, and a shift would not.
    "scaled": "ob.X.multiply(1 / ((m := abs({rows}).max(0).toarray()) + (m == 0))).tocsr()",
    "clipped": "np.clip(ob.y, *np.quantile({rows}, [0.02, 0.98], axis=0))",
    "classes": "np.searchsorted(np.unique({rows})[:-1], ob.y.ravel())",
}


def _new_data(data: Any, rows: Any, how: str | None) -> Any:
    """Return X or y after the change `how`, a key of `DATA_EXPRESSIONS`. `rows` are the rows of
    nonzero weight.
    """
    if how == "standardized":
        spread = rows.std(0)
        return (data - rows.mean(0)) / (spread + (spread == 0))
    if how == "scaled":
        largest = abs(rows).max(0).toarray()
        return data.multiply(1 / (largest + (largest == 0))).tocsr()
    if how == "clipped":
        return np.clip(data, *np.quantile(rows, [0.02, 0.98], axis=0))
    if how == "classes":
        return np.searchsorted(np.unique(rows)[:-1], data.ravel())
    return data


@dataclass(frozen=True)
class Change:
    """A change of a training run. Without arguments, the same network is trained from a new start.

    Attributes
    ----------
    sizes : tuple of int or None
        The layer sizes of a new network, or None for those of the model.
    activation : str or None
        The activation of a new network, or None for that of the model.
    residual : bool
        True if the new network has skip connections.
    inputs : str or None
        "standardized" to give the columns of X mean 0 and variance 1; those of a sparse X are
        scaled only.
    targets : str or None
        "standardized", "clipped" to the 2% and 98% quantiles, or "classes" to replace the values by
        their indices.
    loss : str or None
        The new loss, or None for that of the objective.
    l2 : float or None
        The new weight decay, or None for that of the objective.
    l2_biases : bool or None
        Whether weight decay includes the biases, or None as in the objective.
    method : str or None
        The method of `minimize`, or None for its default.
    learning_rate : float or None
        The learning rate of `method`, or None for its default.
    batch_size : int or None
        The number of rows in a mini-batch of `method`, or None for all rows.
    action : str or None
        "escape" to leave the saddle at theta and continue, or "join_rows" to join X and y again,
        row by row, which no call does. None to train from a new start.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> X = np.linspace(-1, 1, 20)[:, None]
    >>> ob = fc.Objective(fc.MLP([1, 3, 1]), X, np.sin(3 * X), "mse", l2=10.0)
    >>> change = Change(l2=1e-4)
    >>> change.python_call(ob)
    "fc.minimize(fc.Objective(ob.model, ob.X, ob.y, 'mse', 0.0001), rng=0)"
    >>> change.apply(ob, ob.model.init(rng=0)).kind
    'minimum'
    >>> Change(method="sgd", learning_rate=0.1).python_call(ob)
    "fc.minimize(ob, method='sgd', learning_rate=0.1, rng=0)"
    """

    sizes: tuple[int, ...] | None = None
    activation: str | None = None
    residual: bool = False
    inputs: str | None = None
    targets: str | None = None
    loss: str | None = None
    l2: float | None = None
    l2_biases: bool | None = None
    method: str | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    action: str | None = None

    @property
    def makes_objective(self) -> bool:
        """True if the network, the data, the loss or the weight decay changes."""
        return self.action is None and self != Change(**self.run_options)

    @property
    def run_options(self) -> dict[str, Any]:
        """The options of `minimize` that change."""
        names = "method", "learning_rate", "batch_size"
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def makes_network(self) -> bool:
        """True if the network changes."""
        return self.sizes is not None or self.activation is not None or self.residual

    def to_dict(self) -> dict[str, Any]:
        """Return what changes, by name."""
        usual = Change()
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != getattr(usual, f.name)
        }

    def apply(self, ob: Objective, theta: Any) -> Any:
        """Train with the change, and return the result of `minimize`.

        Parameters
        ----------
        ob : Objective
            The objective of the run that failed. It is not changed.
        theta : array_like, shape (n,)
            The point where that run ended, which only an escape from a saddle uses.

        Raises
        ------
        ValueError
            If the rows of X and y must be joined again.
        """
        if self.action == "join_rows":
            raise ValueError("X and y must be joined again, row by row, which no call can do.")
        if self.action == "escape":
            return minimize(ob, escape(ob, theta).x)
        new = self.new_objective(ob) if self.makes_objective else ob
        return minimize(new, **self.run_options, rng=0)

    def new_objective(self, ob: Objective) -> Objective:
        """Return the objective after the change."""
        used = slice(None) if self._all_rows_count(ob) else ob.sample_weight > 0
        model = ob.model
        loss: Any = self.loss or ob.loss
        if self.makes_network:
            flags = {name: getattr(model, name) for name in ("bias", "residual", "batch_norm")}
            flags["residual"] |= self.residual
            activation: Any = self.activation or model.activation
            sizes = self.sizes or model.sizes
            if len(set(model.activation)) == 1:
                activation = self.activation or model.activation[0]
            model = MLP(list(sizes), activation, dtype=model.dtype.name, **flags)
        return Objective(
            model,
            _new_data(ob.X, ob.X[used], self._inputs(ob)),
            _new_data(ob.y, ob.y[used], self.targets),
            loss,
            float(np.max(ob.l2)) if self.l2 is None else self.l2,
            ob.sample_weight,
            l2_biases=ob.l2_biases if self.l2_biases is None else self.l2_biases,
        )

    def python_call(self, ob: Objective) -> str:
        """Return the source of the call that trains with the change: an expression in fc, np, ob
        and theta, or an objective on rows X and y whose order is known.
        """
        if self.action == "join_rows":
            return "fc.Objective(ob.model, X, y, ob.loss)  # rows of X and y in the same order"
        if self.action == "escape":
            return "fc.minimize(ob, fc.escape(ob, theta).x)"
        options = "".join(f", {name}={value!r}" for name, value in self.run_options.items())
        if not self.makes_objective:
            return f"fc.minimize(ob{options}, rng=0)"
        used = "" if self._all_rows_count(ob) else "[ob.sample_weight > 0]"
        data = [
            DATA_EXPRESSIONS[how].format(name=name, rows=f"ob.{name}{used}")
            for name, how in (("X", self._inputs(ob)), ("y", self.targets))
        ]
        loss = self.loss or ob.loss
        l2 = float(np.max(ob.l2)) if self.l2 is None else self.l2
        parts = [self._network_expression(ob.model), *data]
        parts += [repr(loss) if isinstance(loss, str) else "ob.loss", f"{l2:.3g}"]
        parts += ["ob.sample_weight"] * (ob.sample_weight is not None)
        parts += ["l2_biases=False"] * (not (ob.l2_biases if self.l2_biases is None else True))
        return f"fc.minimize(fc.Objective({', '.join(parts)}){options}, rng=0)"

    def _network_expression(self, model: MLP) -> str:
        if not self.makes_network:
            return "ob.model"
        alike = len(set(model.activation)) == 1
        if self.activation is None and not all(isinstance(x, str) for x in model.activation):
            activation = "ob.model.activation" + "[0]" * alike
        else:
            current = model.activation[0] if alike else list(model.activation)
            activation = repr(self.activation or current)
        flags: dict[str, Any] = {"bias": model.bias, "residual": model.residual or self.residual}
        flags |= {"batch_norm": model.batch_norm, "dtype": model.dtype.name}
        usual = {"bias": True, "residual": False, "batch_norm": False, "dtype": "float64"}
        options = [f", {name}={flag!r}" for name, flag in flags.items() if flag != usual[name]]
        return f"fc.MLP({list(self.sizes or model.sizes)}, {activation}{''.join(options)})"

    def _inputs(self, ob: Objective) -> str | None:
        return "scaled" if self.inputs and is_sparse(ob.X) else self.inputs

    @staticmethod
    def _all_rows_count(ob: Objective) -> bool:
        return ob.sample_weight is None or bool(np.all(ob.sample_weight))

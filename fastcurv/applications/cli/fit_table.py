"""Train a network on a table to a minimum, with a weight decay chosen for the table. This needs
NumPy and SciPy alone.

The decay is the one with the largest evidence of the Laplace approximation, on a path from large to
small decays (`applications.uncertainty.path`), for a part of the rows if there are many. If the
matrix of the approximation is too large or the loss has no evidence, the decay that predicts
left-out rows of five folds best is used. Training ends at a minimum of the loss on all rows with
this decay, so that all predictions of left-out rows follow from one factor of the Hessian. The
penalty includes the biases, because the biases of unused units would otherwise have no curvature.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ...common.runtime import raise_if_interrupted, serial_blas_context
from ...network.objective import Objective
from ...optimize.minimize import minimize
from ...structure.tables import loss_spec
from ..diagnosis.facts import constant_loss
from ..uncertainty.laplace import is_negative_log_likelihood
from ..uncertainty.path import (
    L2_RATIO,
    MAX_L2,
    MIN_L2,
    PATH_PLATEAU_LOSS_RATIO,
    max_evidence_posterior,
    with_units_restarted,
)
from .cells import NO_OPTIONS, ReadingOptions
from .data import DataCoding, Dataset, resolve_source
from .encode import Table, load_table_dataset
from .fit_network import TrainedNetwork, fit_of
from .measure import FitMeasurements, LinearModel, is_linear_better, measure_fit
from .recipe import TrainingRecipe, check_saved_size, save_run
from .span import (
    change_input_basis,
    has_more_columns_than_rows,
    minimize_in_row_space,
    restrict_to_row_space,
)

DEFAULT_HIDDEN = (10,)  # default widths of the hidden layers
N_PATH_ITERATIONS = 500  # number of L-BFGS iterations at each decay of the path
# maximum and minimum number of rows on which the decay is chosen; within them, the work of the
# Gauss-Newton matrix is at most `MAX_PATH_FLOPS`
MAX_PATH_ROWS, MIN_PATH_ROWS = 5000, 500
MAX_PATH_FLOPS = 1e10
# maximum number of parameters for which factorisations of the matrix, and a verdict, take no longer
# than the fits
MAX_PATH_PARAMS = 2000
N_DECAY_FOLDS = 5  # number of folds that choose the decay if the evidence cannot
# maximum number of successive decays without a better score of left-out rows
MAX_IDLE_DECAYS = 3


@dataclass(frozen=True)
class TableFit:
    """A network trained on a table, as `fit_table` returns it.

    Attributes
    ----------
    table : Table
        The table as it was read; ``table.y`` are the targets in their own units, or labels.
    data : Dataset
        The rows as inputs of the network: ``data.X`` holds the standardised inputs.
    ob, theta : Objective, ndarray (n,)
        The objective over all rows with the chosen decay, and the parameters at the minimum.
    alpha : float
        The weight decay as scikit-learn counts it: ``l2`` times the number of rows, times 1/2 for
        squared errors.
    recipe : TrainingRecipe
        The settings from which the objective can be rebuilt from the file.
    message : str
        The reason why the training ended.
    notes : tuple of str
        Sentences on the parts of the table that were left out, and on assumptions.
    seconds : float
        Processor time of the training in seconds, including the choice of alpha.
    groups : ndarray (N,) of int, optional
        Number of the group of each row.
    """

    table: Table
    data: Dataset
    ob: Objective
    theta: np.ndarray
    alpha: float
    recipe: TrainingRecipe
    message: str
    notes: tuple[str, ...]
    seconds: float
    groups: Any = None

    @property
    def coding(self) -> DataCoding:
        """The `DataCoding` that converts cells to inputs, and outputs to predictions."""
        return replace(self.data.coding, sizes=tuple(self.ob.model.sizes))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(name for code in self.coding.codes for name in code.input_names)

    @property
    def trained_network(self) -> TrainedNetwork:
        """The network in the form that `page.build_page` accepts."""
        shift, scale = self.coding.y_shift or (0.0,), self.coding.y_scale or (1.0,)
        classes = self.coding.classes or None
        seed = self.recipe.seed
        return TrainedNetwork(
            self.ob, self.theta, shift[0], scale[0], classes, seed, self.seconds, self.groups
        )

    def n_columns(self) -> int:
        """Return the number of columns that the fit uses."""
        return sum(meaning.coding.kind != "left out" for meaning in self.table.meanings)

    def save(self, path: str | Path, errors: Any = None) -> Path:
        """Write the network and its coding to the file `path`, which `fastcurv predict` and the
        other commands can read, with the errors of rows left out if intervals come from these.
        Return the absolute path.
        """
        parts = path, self.recipe, self.ob.model, self.theta
        return save_run(*parts, coding=self.coding, errors=errors)

    def with_linear_model(self, linear: LinearModel) -> TableFit:
        """Return the linear model as a fit to the table."""
        recipe = replace(self.recipe, hidden=(), l2=float(linear.ob.l2), l2_biases=False)
        n_terms = linear.ob.n_samples * loss_spec(linear.ob.loss).sklearn[1](
            linear.ob.model.sizes[-1]
        )
        return replace(
            self,
            ob=linear.ob,
            theta=linear.theta,
            alpha=float(linear.ob.l2) * n_terms,
            recipe=recipe,
        )


def fit_table(
    source: Any,
    target: str | None = None,
    *,
    loss: str | None = None,
    hidden: tuple[int, ...] = DEFAULT_HIDDEN,
    alpha: float | None = None,
    seed: int = 0,
    n_threads: int | None = None,
    max_time: float | None = None,
    options: ReadingOptions = NO_OPTIONS,
    note: Callable[[str], None] = lambda text: None,
    save: str | None = None,
    groups: str | None = None,
) -> TableFit:
    """Read a table and train a tanh network on all of its rows, to a minimum.

    Parameters
    ----------
    source : str, path or pandas.DataFrame
        A table, see `encode.read_table`.
    target : str, optional
        The column to predict, by name or by number from 0; by default the last.
    loss : str, optional
        By default mse for regression, binary cross entropy for two classes, and cross entropy for
        more classes.
    hidden : tuple of int
        Widths of the hidden layers.
    alpha : float, optional
        Weight decay, see `TableFit`; by default the one with the largest evidence.
    seed : int
        Seed of the start, and of the rows on which alpha is chosen if there are many.
    n_threads : int, optional
        Number of threads.
    max_time : float, optional
        Seconds for the training, without reading.
    options : ReadingOptions
        Decisions on what the table leaves open.
    note : callable
        Called with a few words before each step.
    save : str, optional
        The path that `TableFit.save` will write, to check the size of the file before training.
    groups : str, optional
        A column, by name or by number from 0, whose cells name the group of each row. It is no
        input, and the rows of a group are left out together.

    Returns
    -------
    TableFit

    Raises
    ------
    ValueError
        If the table has a defect, see `encode.read_table`, or the targets do not fit the loss.
    ImportError
        If pandas, or the package that reads the format of the file, is not installed.
    KeyboardInterrupt
        On Ctrl-C.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "waves.csv"
    >>> rows = [f"{x:.3f},{np.sin(x) + 0.1 * np.cos(9 * x):.4f}" for x in np.arange(0, 6, 0.1)]
    >>> _ = path.write_text(chr(10).join(["x,y", *rows]))
    >>> fit = fit_table(path, "y")
    >>> fit.ob.n_params, bool(np.linalg.norm(fit.ob.gradient(fit.theta)) < 1e-6)
    (31, True)
    """
    began = time.monotonic()
    name = str(source) if isinstance(source, (str, PathLike)) else ""
    note("reading the table")
    data, table = load_table_dataset(source, target, loss, options=options, groups=groups)
    # The name replaces a position, which counts the column of the target too.
    codes = None if groups is None else _group_codes(table, table.options.ignore[-1])
    check_saved_size(save, data.coding)
    recipe = TrainingRecipe(
        resolve_source(name) if name else "",
        hidden=tuple(hidden),
        l2=0.0,
        seed=seed,
        loss=data.loss,
        target=target,
        held_out=0.0,
        digest=data.digest,
        table=True,
        reading=table.options,
    )
    started, plain = time.process_time(), recipe.build_objective(data, n_threads)
    theta, notes = plain.model.init(rng=seed), table.notes
    count = plain.n_samples * loss_spec(data.loss).sklearn[1](plain.model.sizes[-1])
    if alpha is None:
        note("choosing the weight decay")
        by_evidence = has_evidence(plain)
        choose, why = choose_l2_by_folds, f"predicts left-out rows of {N_DECAY_FOLDS} folds best"
        if by_evidence:
            choose, why = choose_l2_by_evidence, "has the largest evidence"
        l2, theta = choose(plain, theta, seed)
        notes += (f"The weight decay, alpha = {l2 * count:.3g}, {why}.",)
    else:
        l2 = alpha / count
    note("training to a minimum")
    ob = plain.with_l2(l2)
    left = None if max_time is None else max(max_time - (time.monotonic() - began), 1e-3)
    small = ob.n_params <= MAX_PATH_PARAMS
    run, theta = minimize_in_row_space(ob, theta, rng=seed, max_time=left, verdict=small)
    recipe = replace(recipe, l2=l2)
    found = table, data, ob, theta, l2 * count, recipe, str(run.message), notes
    return TableFit(*found, time.process_time() - started, codes)


def _group_codes(table: Table, name: str) -> np.ndarray:
    """Return the number of the group of each row, in a column of the table."""
    column = table.sheet.columns[table.sheet.find_column(name, "groups")]
    used, codes = np.unique(column.codes, return_inverse=True)
    if len(used) < 2:
        raise ValueError(
            f"{column.place()} must hold at least two different values for groups, got {len(used)}."
        )
    return codes


def choose_model(
    fit: TableFit,
    *,
    keep_network: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[TableFit, FitMeasurements]:
    """Return the given network, or a linear model that predicts rows left out better, with its
    measurements. If `keep_network` is True, return the network. `note` is called with a few words
    before each step.
    """

    def measure(fit: TableFit) -> FitMeasurements:
        with serial_blas_context():
            return measure_fit(fit_of(fit.trained_network, fit.data.X, fit.table.y), note)

    found = measure(fit)
    if not keep_network and is_linear_better(found):
        rival = found
        fit = fit.with_linear_model(found.linear)
        found = measure(fit)
        found.rival = rival
    return fit, found


def has_evidence(ob: Objective) -> bool:
    """Return True if the evidence can choose the decay. This requires a loss that is a likelihood
    with one output for each target, and at most `MAX_PATH_PARAMS` parameters.
    """
    given = loss_spec(ob.loss).given
    small = ob.n_params <= MAX_PATH_PARAMS
    return is_negative_log_likelihood(ob.loss) and small and (given is None or given.per_target < 2)


def _fit_to_tolerance(ob: Objective, theta: Any) -> Any:
    return raise_if_interrupted(
        minimize(ob, theta, "l-bfgs", max_iter=N_PATH_ITERATIONS, verdict=False, progress=False)
    ).x


def choose_l2_by_evidence(ob: Objective, start: Any, seed: int) -> tuple[float, np.ndarray]:
    """Return the penalty with the largest evidence, and theta at the end of a fit with this
    penalty. The path of fits begins at theta = `start`.

    If the matrix of all rows would take long, the penalty is chosen on a part of the rows. This is
    possible because the precision ``l2 N`` of the weights does not depend on the number N of rows.
    """
    N, most = ob.n_samples, MAX_PATH_FLOPS / (ob.model.sizes[-1] * ob.n_params**2)
    count = min(N, MAX_PATH_ROWS, max(MIN_PATH_ROWS, int(most)))
    rows = np.sort(np.random.default_rng(seed).permutation(N)[:count])
    some = ob if count == N else ob.batch(rows)
    best = max_evidence_posterior(some, start, _fit_to_tolerance, count=count)
    return float(best.objective.l2) * count / N, best.theta


def choose_l2_by_folds(ob: Objective, start: Any, seed: int) -> tuple[float, np.ndarray]:
    """Return the penalty with the lowest loss of rows left out by folds, on a path from large to
    small penalties, and theta at the end of a fit with this penalty to all rows.
    """
    N = ob.n_samples
    if has_more_columns_than_rows(ob):
        ob, start, basis = restrict_to_row_space(ob, start)
        best, theta = choose_l2_by_folds(ob, start, seed)
        return best, change_input_basis(ob.model, theta, basis.T)[1]
    fold = np.random.default_rng(seed).permutation(N) % N_DECAY_FOLDS
    fitted = [ob.batch(fold != i) for i in range(N_DECAY_FOLDS)]
    held = [ob.batch(fold == i) for i in range(N_DECAY_FOLDS)]
    thetas, l2, idle, best, lowest = [start] * N_DECAY_FOLDS, MAX_L2, 0, MAX_L2, np.inf
    while l2 > MIN_L2 and idle < MAX_IDLE_DECAYS:
        thetas = [
            _fit_to_tolerance(one.with_l2(l2), with_units_restarted(one.model, theta, start))
            for one, theta in zip(fitted, thetas)
        ]
        loss = sum(one.value(theta) * one.n_samples for one, theta in zip(held, thetas)) / N
        if loss < lowest:
            best, lowest, idle = l2, loss, 0
        elif fitted[0].value(thetas[0]) < PATH_PLATEAU_LOSS_RATIO * constant_loss(fitted[0]):
            idle += 1  # decays count only after units have become active
        l2 *= L2_RATIO
    return best, _fit_to_tolerance(ob.with_l2(best), start)

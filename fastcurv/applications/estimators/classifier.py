"""A classifier with scikit-learn's interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from scipy.special import expit, log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from ...common.checks import is_sparse, short_repr
from ...common.protocols import Solver
from ...structure.tables import DEFAULT_LOSS_BY_TARGETS, Layered, LossName
from ...structure.user_functions import Loss
from .base import BaseMLP, supports_partial_fit
from .parameters import check_parameters
from .rows import sanitise, scored_rows

PARAMETERS_DOC = """
    Parameters
    ----------
    hidden_layer_sizes : sequence of int
        Widths of the hidden layers.
    activation : str, fastcurv.Activation, or a sequence of them
        ``relu``, ``tanh``, ``logistic``, ``identity``, or any activation of `fastcurv.MLP`. A
        sequence has one activation for each hidden layer.
    solver : str
        ``auto``: L-BFGS until `tol` is met, trust-region steps with exact Hessian products if
        L-BFGS stalled, and an escape if the gradient meets `tol` at a saddle. This solver draws no
        random numbers. Other values are the methods of `fastcurv.minimize`, such as
        ``trust-region``, ``newton-cg``, ``gauss-newton``, ``cubic``, ``saddle-free-newton`` and
        ``lbfgs``, or with mini-batches ``sgd``, ``momentum``, ``nesterov``, ``rmsprop`` and
        ``adam``.
    alpha : float, "auto" or "evidence"
        Weight decay: ``alpha / 2`` times the squares of the weights, without biases, divided by the
        number of rows, as in scikit-learn, whose default is 1e-4. "auto": the value from 10 to
        1e-4, for classes and losses with an exponential from 10 to 0.3, with the lowest loss on a
        quarter of the rows, which are held out. For each value the other rows are fitted until the
        held-out loss has not fallen for a while. Then all rows are fitted from the best point, down
        to the loss reached there (``stopped_`` is "held_out"), or until the gradient vanishes if
        the held-out loss fell to the end. Equal rows are held out together, and no random number
        is drawn. 1e-4, or 0.3 for losses with an exponential, is used if no rows are held out: with
        another `solver`, with `early_stopping`, or with fewer than about 40 distinct rows.
        "evidence": the value with the largest evidence of the Laplace approximation (see
        `fastcurv.laplace`), on a path from large to small values with the same lower limit for
        classes. All rows are fitted, until the gradient vanishes. This requires ``solver="auto"``
        and at most 4096 parameters.
    batch_size : int or "auto"
        Rows per mini-batch; "auto" is min(200, N). Other solvers ignore it.
    learning_rate_init : float, optional
        Learning rate of mini-batch solvers; each has its own default.
    momentum, beta_1, beta_2, epsilon : float
        Momentum of ``momentum`` and ``nesterov``, and the decay rates and the smallest denominator
        of ``adam``, as in scikit-learn. Other solvers ignore them.
    max_iter : int, optional
        Limit on iterations, or on epochs of a mini-batch solver. The default is 2000 if `solver`
        and at least one of `alpha` and `tol` are "auto" and no earlier fit is continued, and 200
        otherwise. The limit holds for the fit of all rows, and for each fit that chooses `alpha`,
        which ends after at most 1000.
    tol : float or "auto"
        Largest entry of the gradient of ``loss_`` that counts as zero. "auto" is 1e-4. With a
        number, a fit whose `alpha` was chosen continues until ``loss_`` is minimal.
    random_state : int, RandomState or None
        Seed of the start, of the rows held out for early stopping, and of mini-batches.
    warm_start : bool
        Start where the last fit ended.
    early_stopping : bool
        Hold out `validation_fraction` of the rows, keep the point with the lowest loss on these
        rows, and end after `n_iter_no_change` iterations without a lower loss.
    validation_fraction : float
        Fraction of the rows held out for `early_stopping`.
    n_iter_no_change : int
        Number of epochs of a mini-batch solver that lower ``loss_`` by less than `tol`, or of
        iterations that do not lower the held-out loss of early stopping, after which a run ends.
    max_time : float, optional
        Seconds after which the fit ends.
    n_threads, memory : int, optional
        See `fastcurv.Objective`.
    verdict : bool
        Whether to compute `curvature_`, which can cost more than the fit.
    verbose : bool
        Show a progress bar, if tqdm is installed.

    Attributes
    ----------
    loss_, best_loss_ : float
        The objective at ``theta_``, and the lowest of ``loss_curve_``.
    loss_curve_ : list of float
        The loss at the start and after each iteration. For an epoch of mini-batches it is the mean
        loss of the batches, each at the theta of its step, as in scikit-learn.
    n_iter_ : int
        The number of iterations, or of epochs.
    stopped_ : str
        The reason why the run ended: ``callback`` if the gradient met tol, ``held_out`` if the
        loss of rows held out stopped improving, ``patience`` after `n_iter_no_change`, and others
        as in `fastcurv.minimize`.
    curvature_ : CriticalPoint or None
        The verdict of `fastcurv.classify` on the end. None without `verdict`.
    model_, theta_ : MLP, ndarray
        The network and its parameters, for use with the other functions of this library.
    training_ : tuple
        The rows of the fit, from which intervals, deviations, the domain and next rows are
        computed, also in copies and pickles. Delete the attribute for a pickle without the rows.
    coefs_, intercepts_ : list of ndarray
        Weights ``(in, out)`` and biases of each layer, as in scikit-learn. They may be assigned or
        written to: predictions, ``theta_``, ``warm_start`` and `fastcurv.from_sklearn` use them.
    validation_loss_curve_ : list of float
        With early stopping, the loss of the rows held out, without the penalty.
    alpha_ : float
        The weight decay of the fit: `alpha`, or the value that was chosen.
    n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_
"""


CLASS_WEIGHT_DOC = """    class_weight : dict or "balanced", optional
        A weight for each class, multiplied by `sample_weight`; "balanced" is N divided by the
        number of classes and by the number of rows of the class.
"""
CLASSIFIER_DOC = PARAMETERS_DOC.replace(
    "    random_state :", CLASS_WEIGHT_DOC + "    random_state :"
)


def distinct_labels(y: Any) -> np.ndarray:
    """Return the distinct labels of y in ascending order. Raise TypeError if they have no order."""
    try:
        return np.unique(y)
    except TypeError:  # NumPy raises this for labels that cannot be compared
        kinds = sorted({type(label).__name__ for label in np.asarray(y, object).reshape(-1)})
        raise TypeError(
            f"labels must be of one type, got the types {', '.join(kinds)}, which have no order."
        ) from None


class MLPClassifier(ClassifierMixin, BaseMLP):
    _multilabel: bool
    classes_: np.ndarray

    __doc__ = f"""A multilayer perceptron classifier, fitted by exact second-order information.

    The loss is cross entropy over the classes or, for two classes and for each label of a
    multilabel target, the logistic loss, as in scikit-learn's ``MLPClassifier``. Labels may be of
    any type, and X may be a sparse matrix.
{CLASSIFIER_DOC}    classes_ : ndarray
        The class labels, sorted; for multilabel targets the column numbers.

    See Also
    --------
    MLPRegressor : The estimator for regression.
    Objective : The function that a fit minimises.

    Examples
    --------
    >>> import fastcurv as fc
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_wine(return_X_y=True)
    >>> net = make_pipeline(StandardScaler(), fc.MLPClassifier((10,), alpha=1.0, random_state=0))
    >>> net.fit(X, y).score(X, y)
    1.0
    >>> net.predict_log_proba(X).shape
    (178, 3)
    """

    _stratify = True

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Layered | Literal["logistic"] = "relu",
        *,
        solver: Solver = "auto",
        alpha: float | Literal["auto", "evidence"] = "auto",
        batch_size: Any = "auto",
        learning_rate_init: float | None = None,
        momentum: float = 0.9,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        max_iter: int | None = None,
        tol: Any = "auto",
        class_weight: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        max_time: float | None = None,
        n_threads: int | None = None,
        memory: int | None = None,
        verdict: bool = False,
        verbose: bool = False,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.momentum = momentum
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.max_iter = max_iter
        self.tol = tol
        self.class_weight = class_weight
        self.random_state = random_state
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.max_time = max_time
        self.n_threads = n_threads
        self.memory = memory
        self.verdict = verdict
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _check_same_labels(self, labels: np.ndarray, several: bool) -> None:
        """Raise ValueError if a fit continued by `warm_start` has different labels. `several` is
        True if each row has several labels.
        """
        if not (self.warm_start and hasattr(self, "classes_")):
            return
        if several == self._multilabel and np.array_equal(labels, self.classes_):
            return
        kinds = {True: "several labels for each row, of", False: "one label for each row, of"}
        before = f"{kinds[self._multilabel]} {self.classes_.tolist()}"
        raise ValueError(
            f"y must have the labels of the last fit for warm_start=True ({before}), got "
            f"{kinds[several]} {labels.tolist()}. Use warm_start=False for others."
        )

    def _encode_targets(self, y: Any, reset: bool) -> tuple[np.ndarray, LossName | Loss, int]:
        if y.dtype == object:
            distinct_labels(y)  # this check raises a clearer error than scikit-learn's check
        check_classification_targets(y)
        labels = y.ndim == 2 and type_of_target(y) == "multilabel-indicator"
        if not reset and labels != self._multilabel:
            known = self.classes_.tolist()
            if labels:
                raise ValueError(
                    f"y must have one class of {known} for each row, got {y.shape[1]} labels for "
                    "each."
                )
            raise ValueError(
                f"y must have {len(known)} labels for each row, each 0 or 1, got one class for "
                "each."
            )
        if labels:
            if reset:
                self._check_same_labels(np.arange(y.shape[1]), True)
                self.classes_, self._multilabel = np.arange(y.shape[1]), True
            elif y.shape[1] != len(self.classes_):
                raise ValueError(f"y must have {len(self.classes_)} labels, got {y.shape[1]}.")
            dense = y.toarray() if is_sparse(y) else y
            return np.asarray(dense, dtype=float), DEFAULT_LOSS_BY_TARGETS["labels"], y.shape[1]
        from sklearn.utils.validation import column_or_1d

        y = column_or_1d(y, warn=True)
        if reset:
            self._check_same_labels(distinct_labels(y), False)
            self.classes_, self._multilabel = distinct_labels(y), False
        known = len(self.classes_)
        codes = np.minimum(np.searchsorted(self.classes_, y), known - 1)
        unknown = self.classes_[codes] != y
        if unknown.any():
            raise ValueError(
                f"y must hold labels of classes_, {self.classes_.tolist()}, got "
                f"{short_repr(y[unknown][0])}. Pass all labels as classes to the first partial_fit."
            )
        if known <= 2:
            return codes.astype(float), DEFAULT_LOSS_BY_TARGETS["labels"], 1
        return codes.astype(np.int32), DEFAULT_LOSS_BY_TARGETS["classes"], known

    def _apply_class_weights(self, y: Any, weight: Any, dtype: Any) -> Any:
        if self.class_weight is None:
            return weight
        given, by_name = short_repr(self.class_weight), isinstance(self.class_weight, str)
        if by_name and self.class_weight != "balanced":
            raise ValueError(f"class_weight must be 'balanced', or weights by class, got {given}.")
        if not by_name and not isinstance(self.class_weight, (Mapping, list)):
            raise TypeError(f"class_weight must be 'balanced', or weights by class, got {given}.")
        of_class = compute_sample_weight(self.class_weight, y).astype(dtype)
        if not (of_class >= 0).all() or not np.isfinite(of_class).all():
            raise ValueError(f"class_weight must hold finite weights >= 0 by class, got {given}.")
        return of_class if weight is None else of_class * weight

    def predict(self, X: Any, return_domain: bool = False) -> Any:
        """Predict the class of each row of X.

        Parameters
        ----------
        X : array_like or sparse matrix (N, n_features)
            The rows.
        return_domain : bool
            If True, also return which rows lie inside the domain of the fit.

        Returns
        -------
        y : ndarray (N,) or (N, n_labels)
            The most probable class of each row. For multilabel targets, 1 for each label whose
            probability is above 1/2, and 0 for the others.
        inside : ndarray (N,) of bool
            Only if `return_domain` is True: False for rows that are extrapolations, see
            `LaplacePosterior.in_domain`.
        """
        labels = self._most_probable_labels(X)
        return (labels, self._rows_in_domain(X)) if return_domain else labels

    def _most_probable_labels(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row of X, or its labels (N, n_labels)."""
        outputs = self._network_outputs(X)
        if self._multilabel:
            return (outputs > 0).astype(int)
        if outputs.shape[1] == 1:
            codes = np.minimum((outputs[:, 0] > 0).astype(int), len(self.classes_) - 1)
        else:
            codes = outputs.argmax(axis=1)
        return np.asarray(self.classes_[codes])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the predicted probability of each class for each row of X.

        Parameters
        ----------
        X : array_like or sparse matrix (N, n_features)
            The rows.

        Returns
        -------
        ndarray (N, n_classes)
            The columns are in the order of `classes_`. For multilabel targets, the probability of
            each label, so that a row need not add up to 1.

        Examples
        --------
        >>> import fastcurv as fc
        >>> net = fc.MLPClassifier((3,), alpha=0.1, random_state=0).fit([[-1.0], [1.0]], ["a", "b"])
        >>> net.predict([[-2.0], [2.0]]).tolist()
        ['a', 'b']
        >>> p = net.predict_proba([[-2.0], [2.0]])
        >>> p.shape, bool((p[0, 0] > 0.5) & (p[1, 1] > 0.5))
        ((2, 2), True)
        """
        outputs = self._network_outputs(X)
        # Probabilities that would round to 1 are set to the largest number below 1.
        if self._multilabel:
            least = np.nextafter(outputs.dtype.type(1), 0)
            return np.asarray(np.minimum(expit(outputs), least))
        if outputs.shape[1] == 1:
            both = np.concatenate([expit(-outputs), expit(outputs)], axis=1)
            return both if len(self.classes_) > 1 else np.ones_like(outputs)
        return np.asarray(softmax(outputs, axis=1))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of `predict_proba`, accurate also for probabilities close to 1.

        Parameters
        ----------
        X : array_like or sparse matrix (N, n_features)
            The rows.

        Returns
        -------
        ndarray (N, n_classes)
            -inf where the probability is 0.
        """
        z, p = self._network_outputs(X), self.predict_proba(X)
        if self._multilabel:
            logs = -np.logaddexp(0, -z)
        elif p.shape[1] == 1:
            logs = 0 * z
        elif z.shape[1] == 1:
            logs = np.concatenate([-np.logaddexp(0, z), -np.logaddexp(0, -z)], axis=1)
        else:
            logs = log_softmax(z, axis=1)
        return np.where(p > 0, logs, -np.inf)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on the given rows.

        Parameters
        ----------
        X : array_like or sparse matrix (N, n_features)
            The rows.
        y : array_like (N,) or (N, n_labels)
            The true classes or labels.
        sample_weight : array_like (N,), optional
            Weights of the rows.

        Returns
        -------
        float
            The fraction of rows whose class is right or, for multilabel targets, all of whose
            labels are right.
        """
        rows = sanitise(y, "y"), sanitise(sample_weight, "sample_weight")
        return float(super().score(*scored_rows(X, *rows)))

    @available_if(supports_partial_fit)
    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> MLPClassifier:
        """Run one epoch of a mini-batch solver on these rows, from the parameters of the last call.
        The first call starts from random parameters.

        Parameters
        ----------
        X, y
            As in `fit`.
        classes : array_like, optional
            All classes, required in the first call unless y contains every class. For a matrix of
            labels these are the column indices.

        Returns
        -------
        self
        """
        check_parameters(self)
        y = sanitise(y, "y")
        first = not hasattr(self, "theta_")
        if (
            not first
            and classes is not None
            and not np.array_equal(np.unique(classes), self.classes_)
        ):
            raise ValueError(
                f"classes must be those of the first call, {self.classes_.tolist()}, got "
                f"{np.unique(classes).tolist()}."
            )
        with self._replacing_fit():
            if first:
                self._multilabel = type_of_target(y) == "multilabel-indicator"
                known = np.arange(np.shape(y)[1]) if self._multilabel else y
                self.classes_ = distinct_labels(known if classes is None else classes)
            self._run_epoch(X, y, first)
        return self

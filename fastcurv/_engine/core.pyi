from collections.abc import Callable, Sequence
from typing import Any, Final, Self, TypedDict, final, type_check_only

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from typing_extensions import disjoint_base

BATCH_NORM_EPS: Final[float]

@disjoint_base
class Rows:
    def __new__(
        cls,
        X: NDArray[np.floating[Any]],
        y: NDArray[np.floating[Any]] | None,
        labels: NDArray[np.int32] | None,
        weight: NDArray[np.floating[Any]] | None,
    ) -> Self: ...
    def with_weight(self, weight: NDArray[np.floating[Any]] | None) -> Rows: ...
    @property
    def X(self) -> NDArray[Any]: ...
    @property
    def y(self) -> NDArray[Any] | None: ...
    @property
    def labels(self) -> NDArray[np.int32] | None: ...
    @property
    def weight(self) -> NDArray[Any] | None: ...

ACTIVATIONS: Final[dict[str, int]]
LOSSES: Final[dict[str, int]]

@type_check_only
class Summation(TypedDict):
    arch: str
    dtype: str
    slice: int
    from_c: bool
    items_of: int
    item_rows: int
    block_rows: int
    lanes: int
    totals_in_double: bool
    panel: int

def available_archs() -> tuple[str, ...]: ...
def chosen_arch() -> str: ...
def set_arch(name: str) -> str: ...
def summation_order(arch: str | None = None, dtype: DTypeLike = "float64") -> Summation: ...
def measure_fma_peak(
    dtype: DTypeLike = "float32", threads: int = 1, arch: str | None = None, rounds: int = 20
) -> float: ...
def empty_padded_rows(rows: int, cols: int, dtype: DTypeLike) -> NDArray[Any]: ...
def padded_copy(
    array: ArrayLike, extra_rows: int = 0, fill: float = 0
) -> tuple[NDArray[Any], NDArray[Any], int]: ...
def copy_transpose(
    V: NDArray[np.floating[Any]], out: NDArray[Any], threads: int = 1
) -> NDArray[Any]: ...

PRODUCT_KINDS: Final[dict[str, int]]

@type_check_only
class Layout(TypedDict):
    chunk: int
    panel: int
    panels: int
    groups: int
    threads: int
    packed_pairs: bool
    arch: str

@disjoint_base
class Plan:
    lock: Lock
    def __new__(
        cls,
        sizes: Sequence[int],
        activations: Sequence[Any],
        skips: Sequence[bool],
        bias: bool,
        rows: Rows,
        loss: str,
        divisor: float,
        l2: float,
        threads: int,
        memory: int = 0,
        batch_norm: bool = False,
        l2_biases: bool = True,
        given: Callable[..., Any] | None = None,
        coupled: bool = False,
    ) -> Self: ...
    @property
    def rows(self) -> Rows: ...
    @property
    def theta(self) -> NDArray[Any] | None: ...
    @property
    def value(self) -> float: ...
    @property
    def l2(self) -> float: ...
    @property
    def gradient(self) -> NDArray[Any] | None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def sizes(self) -> tuple[int, ...]: ...
    @property
    def allows_in_place(self) -> bool: ...
    @property
    def layout(self) -> Layout: ...
    def bind(
        self,
        theta: NDArray[np.floating[Any]],
        gradient: bool = True,
        transient: bool = False,
    ) -> None: ...
    def bind_copy(
        self,
        source: Any,
        theta: NDArray[np.floating[Any]],
        gradient: bool = True,
        transient: bool = False,
    ) -> bool: ...
    def compute_gradient(self) -> None: ...
    def prepare_products(self) -> None: ...
    def unbind(self) -> None: ...
    def replace_rows(
        self,
        X: NDArray[Any],
        y: NDArray[Any] | None,
        labels: NDArray[Any] | None,
        weight: NDArray[Any] | None,
    ) -> bool: ...
    def release_gradient(self) -> None: ...
    def multiply(
        self,
        v: NDArray[np.floating[Any]],
        out: NDArray[Any],
        kind: str = "hessian",
        active: NDArray[np.int8] | None = None,
        l2: bool = True,
    ) -> None: ...
    def quadratic_forms(
        self,
        v: NDArray[np.floating[Any]],
        kind: str = "hessian",
        active: NDArray[np.int8] | None = None,
    ) -> NDArray[np.float64]: ...
    def diagonal(self, kind: str = "hessian") -> NDArray[Any]: ...
    def multiply_jacobian(
        self, v: NDArray[np.floating[Any]], out: NDArray[Any], transpose: bool = False
    ) -> None: ...
    def write_outputs(self, out: NDArray[Any]) -> None: ...
    def state(
        self,
    ) -> list[tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None, NDArray[Any]]]: ...

@disjoint_base
class CurvatureMatrix:
    n: int
    def __new__(cls, plan: Plan, hessian: bool = False) -> Self: ...
    def write_matrix(self, out: NDArray[np.float64]) -> bool: ...

@disjoint_base
class RowJacobian:
    def __new__(cls, plan: Plan) -> Self: ...
    def write_rows(self, first: int, count: int, out: NDArray[Any]) -> None: ...

def wanted_indices(values: NDArray[np.float64], k: int, which: str) -> NDArray[np.intp]: ...

@disjoint_base
class Tridiagonal:
    n: int
    trace: float
    squares: float
    def __init__(self, A: NDArray[np.float64]) -> None: ...
    def eigenvalues(self) -> NDArray[np.float64] | None: ...
    def eigenvectors(self, at: NDArray[np.intp]) -> NDArray[np.float64]: ...

NOT_FINITE_MESSAGE: str

class NotFiniteError(ValueError): ...

@disjoint_base
class Scratchpad: ...

@disjoint_base
class SmallEigensystem:
    m: int

@disjoint_base
class LanczosRecurrence:
    n: int
    dtype: np.dtype[Any]
    eps: float
    rows: NDArray[Any]
    T: NDArray[np.float64]
    err: NDArray[np.float64]
    deflation_coupling: NDArray[np.float64]
    against: NDArray[Any]
    product: Any
    m: int
    p: int
    n_clean: int
    reach: int
    n_locked: int
    capacity: int
    dimension: int
    n_products: int
    @property
    def unit(self) -> float: ...
    tridiagonal: bool
    semiorthogonal: bool
    orthogonality_tol: float
    scale: float
    noise: float
    max_orthogonality_loss: float
    arrays: tuple[NDArray[Any], ...] | None
    def __init__(self, n: int, dtype: DTypeLike, product: Any, times: Any = None) -> None: ...
    def discard_basis(self) -> None: ...
    def drop_pending_rows(self) -> None: ...
    def drop_coupling(self, lost: NDArray[np.float64]) -> None: ...
    def replace_pending_rows(self, W: NDArray[Any]) -> int: ...
    def reset_loss_estimate(self) -> None: ...
    def divide_by_unit(self, W: NDArray[Any]) -> None: ...
    def enlarge_projection(self, rows: int) -> None: ...
    def advance(self, until: int, seconds: float = ...) -> None: ...
    def reorthogonalise(self) -> None: ...
    def set_locked_direction(
        self, w: NDArray[Any], echo: NDArray[Any], coupled: Any, error: float
    ) -> None: ...
    def release_locked_direction(self) -> None: ...
    def replace_by_ritz_vectors(
        self, theta: NDArray[np.float64], S: NDArray[np.float64]
    ) -> None: ...

class Lanczos(LanczosRecurrence):
    def ritz_pairs(
        self, k: int, which: str
    ) -> tuple[
        NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]
    ]: ...
    def ritz_spectrum(
        self,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]: ...
    def ritz_vectors(self, which: Any) -> NDArray[np.float64]: ...
    def check_convergence(
        self, k: int, which: str, tol: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...

def log_polynomial_growth(diagonal: Any, off_diagonal: Any, at: Any) -> NDArray[np.float64]: ...

@disjoint_base
class LevenbergRun:
    theta: NDArray[Any]
    gradient: NDArray[Any]
    value: float
    gradient_norm: float
    damping: float
    growth: float
    corrects: bool
    n_values: int
    def __new__(
        cls, plan: Plan, theta: NDArray[Any], spare: list[Plan] | None = None, most: int = 1
    ) -> Self: ...
    def run(
        self,
        count: int,
        gradient_tol: float,
        target: float,
        seconds: float,
        record: NDArray[np.float64],
    ) -> tuple[int, str]: ...

@disjoint_base
class QuasiNewton:
    pairs: NDArray[Any]
    steps: int
    evaluations: int
    gap: float
    def __new__(cls, n: int, dtype: DTypeLike, memory: int) -> Self: ...
    def start(self, theta: NDArray[Any], value: float, gradient: NDArray[Any]) -> None: ...
    def restore_pairs(self, first: int, count: int) -> None: ...
    @property
    def theta(self) -> NDArray[Any]: ...
    @property
    def gradient(self) -> NDArray[Any]: ...
    @property
    def value(self) -> float: ...
    @property
    def gradient_norm(self) -> float: ...
    @property
    def first(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def best(self) -> tuple[NDArray[Any], float, float] | None: ...
    @property
    def trial(self) -> NDArray[Any]: ...
    @property
    def moved(self) -> bool: ...
    def start_search(self) -> bool: ...
    def supply_trial(self, value: float, gradient: NDArray[Any]) -> bool: ...
    def stop_search(self) -> None: ...
    def run(
        self,
        plan: Plan,
        record: NDArray[np.float64],
        gradient_tol: float,
        target: float,
        seconds: float,
    ) -> str: ...

def batch_norm_statistics(plan: Plan) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]: ...
def force_transposed_layout(lines: int, shared: bool = False) -> None: ...
def force_unpacked_weights(rows: int = -1) -> None: ...
def force_packed_pairs(packed: int = -1) -> None: ...

@disjoint_base
class FloatingPointMode:
    def __new__(cls, threads: object = None) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...

@disjoint_base
class Lock:
    def __new__(cls) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...
    @property
    def lost(self) -> bool: ...
    @property
    def is_held(self) -> bool: ...

MAX_THREADS: int

def default_n_threads() -> int: ...
def count_worker_threads() -> int: ...
def set_thread_limit(threads: int) -> None: ...
def get_thread_limit() -> int: ...

@disjoint_base
class FastProduct:
    n_products: int
    def __init__(self, plan: Plan | None, kind: str, l2: bool) -> None: ...
    def multiply(self, v: Any, out: Any = None) -> NDArray[Any] | None: ...

@disjoint_base
class KrylovSpace:
    n: int
    max_dim: int
    dtype: np.dtype[Any]
    rows: NDArray[Any]
    T: NDArray[np.float64]
    product: NDArray[Any]
    residual_coordinates: NDArray[np.float64] | None
    m: int
    p: int
    n_starts: int
    tridiagonal: bool
    has_multiplied_residual: bool
    gamma: float
    max_abs_eigenvalue: float
    def __init__(
        self,
        n: int,
        dtype: DTypeLike,
        max_dim: int,
        select_row: Callable[[KrylovSpace], None],
    ) -> None: ...
    @property
    def exhausted(self) -> bool: ...
    def start(
        self, multiply: Any, first: NDArray[Any], others: Sequence[NDArray[Any]] = ()
    ) -> None: ...
    def extend(self) -> None: ...
    def ritz_pairs(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
    def linear_term(self) -> NDArray[np.float64]: ...
    def residual_norm(self, y: NDArray[Any]) -> float: ...
    def solve(
        self,
        problem: str,
        parameter: float | None,
        wanted: float,
        limit: int,
        stop: Any,
        cost_weight: float,
        price: float,
        out: NDArray[Any],
    ) -> tuple[float, float, bool, Any]: ...
    def combine(self, y: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]: ...

SUBPROBLEMS: Final[dict[str, int]]

def solve_subproblem(
    problem: str, values: NDArray[Any], linear: NDArray[Any], parameter: float
) -> tuple[NDArray[np.float64], float]: ...

@final
class CGWorkspace:
    g: NDArray[Any]
    r: NDArray[Any]
    p: NDArray[Any]
    Hp: NDArray[Any]
    y: NDArray[Any]
    scratch: NDArray[Any]
    def __init__(self, n: int, dtype: DTypeLike) -> None: ...
    unit: float
    def start(self, g: NDArray[Any]) -> float: ...
    def solve(
        self,
        multiply: Any,
        eps: float,
        tolerance: float,
        bound: float,
        most: int,
        stop: Any,
        cost_weight: float,
        price: float,
    ) -> tuple[NDArray[Any] | None, float | None, float, int]: ...
    def direction_products(self) -> tuple[float, float, float]: ...
    def move_along_direction(
        self, step: float, shift: float
    ) -> tuple[float, float, float, float]: ...
    def update_direction(self, beta: float) -> None: ...

@disjoint_base
class LossEvaluator:
    times: FastProduct
    finite: bool
    def __init__(self, here: Plan, there: Plan, spare: list[Plan], most: int) -> None: ...
    def set_operator_kind(self, kind: str) -> None: ...
    def trial_loss(self, theta: NDArray[Any]) -> float: ...
    def move_to(self, theta: NDArray[Any]) -> tuple[float, NDArray[Any], float]: ...

def input_derivatives(
    sizes: tuple[int, ...],
    phis: tuple[int | None, ...],
    skips: tuple[bool, ...],
    bias: bool,
    dtype: np.dtype[Any],
    theta: Any,
    X: Any,
    order: int,
    weights: Any,
    threads: int = 0,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None] | None: ...
def inner_product(x: NDArray[Any], y: NDArray[Any]) -> float | None: ...
def equal_vectors(x: NDArray[Any], y: NDArray[Any]) -> bool: ...
def project_rows(
    Q: NDArray[np.floating[Any]], W: NDArray[np.floating[Any]]
) -> NDArray[np.float64]: ...
def subtract_rows(
    Q: NDArray[np.floating[Any]], W: NDArray[np.floating[Any]], C: NDArray[Any]
) -> NDArray[np.float64]: ...
def combine_rows(
    Q: NDArray[np.floating[Any]], S: NDArray[Any], Y: NDArray[np.floating[Any]]
) -> NDArray[Any]: ...
def adam_step(
    theta: NDArray[Any],
    g: NDArray[Any],
    average: NDArray[Any],
    squares: NDArray[Any],
    keep_m: float,
    keep_s: float,
    correction: float,
    rate: float,
    eps: float,
) -> None: ...
def activate(activation: Any, z: NDArray[np.floating[Any]]) -> NDArray[Any]: ...

@disjoint_base
class MatrixMultiplier:
    def __init__(self, dtype: Any, threads: int) -> None: ...
    def __call__(
        self,
        out: NDArray[Any],
        A: NDArray[np.floating[Any]],
        B: NDArray[np.floating[Any]],
        add: bool = False,
    ) -> NDArray[Any]: ...

class testing_hooks:
    @staticmethod
    def exceeds_convergence_bound(j: int, fallen: float, bound: float, eps: float) -> bool: ...
    @staticmethod
    def multiply(
        A: NDArray[Any],
        B: NDArray[Any],
        A2: NDArray[Any] | None = None,
        B2: NDArray[Any] | None = None,
        C: NDArray[Any] | None = None,
        arch: str | None = None,
        b_form: str = "padded",
        threads: int = 0,
        repeat: int = 1,
    ) -> NDArray[Any]: ...
    @staticmethod
    def activate(
        arch: str | None, name: str, z: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]: ...
    @staticmethod
    def pack_and_unpack(
        arch: str | None, name: str, z: NDArray[Any]
    ) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]: ...
    @staticmethod
    def evaluate_loss(
        arch: str | None,
        kind: str,
        z: NDArray[Any],
        y: NDArray[Any],
        weight: NDArray[Any] | None = None,
        divisor: float = 1.0,
    ) -> tuple[float, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[np.int32]]: ...
    @staticmethod
    def copy_matrix(
        arch: str | None, array: NDArray[Any], packed: bool = False, bypass: bool = False
    ) -> NDArray[Any]: ...

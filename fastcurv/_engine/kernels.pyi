from typing import Final, TypedDict, type_check_only

from numpy.typing import DTypeLike

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
    exact_totals: bool
    panel: int

def available_archs() -> tuple[str, ...]: ...
def chosen_arch() -> str: ...
def set_arch(name: str) -> str: ...
def summation(arch: str | None = None, dtype: DTypeLike = "float64") -> Summation: ...
def fma_peak(
    dtype: DTypeLike = "float32", threads: int = 1, arch: str | None = None, rounds: int = 20
) -> float: ...

from typing import Final

BATCH_NORM_EPS: Final[float]

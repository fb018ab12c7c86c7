"""Networks: the model, its objective over data, and the operators of its second-order
information.
"""

from scipy.sparse import issparse

from .objective import Objective
from .rows import yields_sparse
from .sparse import SparseObjective, SparseStreamed
from .streaming import StreamedObjective

Objective._kinds.append((issparse, SparseObjective))
StreamedObjective._kinds.append((yields_sparse, SparseStreamed))

"""Networks: the model, its objective over data, and the operators of its second-order
information.
"""

from .objective import Objective as Objective
from .shards import Shard
from .streaming import StreamedObjective as StreamedObjective

# An objective of sparse rows holds a shard of all rows, which is an objective.
Objective._shard_type = Shard

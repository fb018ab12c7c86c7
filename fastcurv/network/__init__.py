"""Networks: the model, its objective over data, and the operators of its second-order
information.
"""

from . import spaces
from .objective import Objective as Objective
from .operators import Curvature
from .shards import Shard
from .streaming import StreamedObjective as StreamedObjective

# Two classes use what is built on them: curvatures return operators in smaller spaces, and an
# objective of sparse rows holds a shard of all rows, which is an objective.
Curvature._spaces = spaces
Objective._shard_type = Shard

"""Networks: the model, its objective over data, and the operators of its second-order
information.
"""

from .objective import Objective as Objective
from .streaming import StreamedObjective as StreamedObjective

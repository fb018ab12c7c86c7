"""Networks: the model, its objective over data, and the operators of its second-order
information.
"""

from . import spaces
from .objective import Objective as Objective
from .operators import Curvature
from .streaming import StreamedObjective as StreamedObjective

# Operators in smaller spaces are built on curvatures, and curvatures return them on request.
Curvature._spaces = spaces

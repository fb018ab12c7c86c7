"""Networks: the model, its objective over data, and the operators of its second-order
information.
"""

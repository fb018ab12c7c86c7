"""Structure of a network from its architecture alone: layers, symmetries, equivalent parameters."""

"""What the architecture alone tells: layers, symmetries, equivalent parameters. NumPy only."""

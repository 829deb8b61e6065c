"""The first witness: the chain rule, written by hand over NumPy arrays."""

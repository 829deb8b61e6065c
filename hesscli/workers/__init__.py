"""Several processes that share the examples: shares, sums, agreement."""

"""The uncertainty that rounding leaves in each witness's numbers."""

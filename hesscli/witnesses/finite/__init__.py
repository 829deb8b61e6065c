"""The third witness: finite differences."""

"""The witnesses, a folder each, and what they share."""

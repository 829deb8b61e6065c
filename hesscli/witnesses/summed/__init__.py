"""Witnesses of a problem whose examples are not held at once."""

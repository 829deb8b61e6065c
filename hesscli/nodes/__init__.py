"""The calculus of a network's nodes."""

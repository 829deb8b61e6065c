"""The activation x³, for ``hesscli verify --activation cube --plugin docs/examples/cube.py``."""

ACTIVATIONS = {
    "cube": {
        "value": lambda z: z**3,
        "first": lambda z: 3 * z**2,
        "second": lambda z: 6 * z,
        "tensorflow": lambda z: z**3,  # optional
    },
}

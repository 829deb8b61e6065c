"""The activation x³ with a mistake in its second derivative, which ``hesscli verify`` finds."""

ACTIVATIONS = {
    "wrong_cube": {
        "value": lambda z: z**3,
        "first": lambda z: 3 * z**2,
        "second": lambda z: 3 * z,  # 6 z would be right
        "tensorflow": lambda z: z**3,
    },
}

"""The second witness: TensorFlow's automatic differentiation."""

"""Fisher matrices, Kronecker factors and diagonals that stand for a Hessian."""

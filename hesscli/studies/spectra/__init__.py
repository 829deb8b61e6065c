"""How spectra are found: exactly from a small matrix, by Lanczos, and by quadrature."""

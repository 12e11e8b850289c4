"""Kernels for the CPU, in numba over NumPy arrays; no backend: NumPy's and torch's use them."""

"""Kernels for the CPU over NumPy arrays, compiled by numba; no backend of its own.

The backends of NumPy and PyTorch run them where numba is installed (extra ``numba``).
"""

"""Kernels in CUDA C for the backends whose libraries can run them: CuPy and JAX.

The text of each kernel, and how to lay it out on a device; no library is imported here.
"""

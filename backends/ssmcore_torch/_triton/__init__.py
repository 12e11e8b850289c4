"""Kernels for NVIDIA GPUs, in Triton: plain functions on torch tensors in canonical form.

Leading axes are flattened to one, R; time is axis 1. No function differentiates itself: each has
its backward beside it, in the module of its name. Any strides and sizes, 64-bit offsets, no
atomics: bit for bit the same from run to run.
"""

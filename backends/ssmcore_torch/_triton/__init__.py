"""Kernels for NVIDIA GPUs, in Triton: plain functions on torch tensors in canonical form.

Leading axes are flattened to one, R; time is axis 1. No function differentiates itself: each has
its backward beside it. Any strides, any sizes, 64-bit offsets, no atomics: bit for bit the same
from run to run.
"""

from __future__ import annotations

from ssmcore_torch._triton.linear_scan import linear_scan, linear_scan_backward
from ssmcore_torch._triton.selective_scan import selective_scan, selective_scan_backward

__all__ = ["linear_scan", "linear_scan_backward", "selective_scan", "selective_scan_backward"]

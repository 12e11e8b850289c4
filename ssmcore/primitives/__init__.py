"""The primitives: everything a backend may replace, and nothing else.

Each public function documents, validates and dispatches; its reference twin, written against the
array API standard, is in a ``_reference_*`` module of this package.
"""

from ssmcore.primitives.convolution import causal_convolution, short_convolution
from ssmcore.primitives.dispatch import REFERENCES, implementation
from ssmcore.primitives.kernels import diagonal_kernel, dplr_kernel
from ssmcore.primitives.scan import diagonal_scan, linear_scan, selective_scan

__all__ = [
    "REFERENCES",
    "causal_convolution",
    "diagonal_kernel",
    "diagonal_scan",
    "dplr_kernel",
    "implementation",
    "linear_scan",
    "selective_scan",
    "short_convolution",
]

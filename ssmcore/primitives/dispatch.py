"""Which implementation of a primitive runs: the backend's own, else the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ssmcore import backend
from ssmcore.primitives import _reference_convolution, _reference_kernel, _reference_scan
from ssmcore.typing import Array

__all__ = ["REFERENCES", "implementation"]

REFERENCES: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "linear_scan": _reference_scan.linear_scan,
        "diagonal_scan": _reference_scan.diagonal_scan,
        "selective_scan": _reference_scan.selective_scan,
        "causal_convolution": _reference_convolution.causal_convolution,
        "short_convolution": _reference_convolution.short_convolution,
        "diagonal_kernel": _reference_kernel.diagonal_kernel,
        "dplr_kernel": _reference_kernel.dplr_kernel,
    }
)


def implementation(name: str, *given: Array) -> Callable[..., Any]:
    """Return what runs primitive ``name`` for arrays ``given``, all of one library."""
    native = backend.of(*given).primitives().get(name)
    return native if native is not None else REFERENCES[name]

"""Operators ``torch.ops.ssmcore.*``: opaque to the compiler, one kernel per device.

On the CPU they run numba's kernels, over NumPy views of the tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

__all__ = ["define", "differentiate", "numpy_view", "tensors"]

_LIBRARY: Any = torch.library.Library("ssmcore", "DEF")  # type: ignore[no-untyped-call]


def define(schema: str, fake: Callable[..., Any], cpu: Callable[..., Any]) -> Any:
    """Add an operator; ``fake`` returns empty tensors of the shapes and dtypes of its results."""
    name = schema.split("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, cpu, "CPU")
    torch.library.register_fake(f"ssmcore::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.ssmcore, name)


def differentiate(name: str, backward: Callable[..., Any], save: Callable[..., None]) -> None:
    """Give operator ``name`` the gradient ``backward`` from what ``save`` keeps."""
    torch.library.register_autograd(f"ssmcore::{name}", backward, setup_context=save, lib=_LIBRARY)


def numpy_view(x: torch.Tensor | None) -> np.ndarray[Any, Any] | None:
    """Return ``x`` as a NumPy array on the same memory."""
    return None if x is None else x.detach().resolve_conj().resolve_neg().numpy()


def tensors(*results: np.ndarray[Any, Any]) -> tuple[torch.Tensor, ...]:
    """Return ``results`` as tensors on the same memory."""
    return tuple(map(torch.from_numpy, results))

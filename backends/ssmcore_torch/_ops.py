"""Operators ``torch.ops.ssmcore.*``: opaque to the compiler, one kernel per device.

``KERNELS`` says whose kernels run on which device; a library is imported with the first tensor
that reaches its kernels. What no kernel takes runs as the reference.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ssmcore import backend

__all__ = [
    "KERNELS",
    "define",
    "differentiable",
    "differentiate",
    "empties",
    "numpy_view",
    "recorded",
    "tensors",
    "traced",
    "transformed",
]

OLDEST = {"triton": (3, 3)}
"""Older ones do not take the arguments of the kernels."""


def _usable(library: str) -> bool:
    """Whether ``library`` is installed, and new enough; Triton under its own name only."""
    if importlib.util.find_spec(library) is None:
        return False
    if library not in OLDEST:
        return True
    try:
        found = re.match(r"(\d+)\.(\d+)", importlib.metadata.version(library))
    except importlib.metadata.PackageNotFoundError:
        return False
    return found is not None and tuple(map(int, found.groups())) >= OLDEST[library]


KERNELS = {
    device: library
    for device, library in {"cpu": "numba", "cuda": "triton"}.items()
    if _usable(library)
}
"""Whose kernels run on tensors of which device; on all others the references run."""

_LIBRARY: Any = torch.library.Library("ssmcore", "DEF")  # type: ignore[no-untyped-call]


def define(schema: str, fake: Callable[..., Any], **kernels: Callable[..., Any]) -> Any:
    """Add an operator with ``kernels`` by library.

    ``fake`` returns empty tensors of the shapes, strides and dtypes of its results.
    """
    name = schema.split("(")[0]
    _LIBRARY.define(schema)
    for device, library in KERNELS.items():
        if library in kernels:
            _LIBRARY.impl(name, kernels[library], device.upper())
    torch.library.register_fake(f"ssmcore::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.ssmcore, name)


def differentiate(name: str, backward: Callable[..., Any], save: Callable[..., None]) -> None:
    """Give operator ``name`` the gradient ``backward`` from what ``save`` keeps."""
    torch.library.register_autograd(f"ssmcore::{name}", backward, setup_context=save, lib=_LIBRARY)


def transformed(*given: torch.Tensor | None) -> bool:
    """Whether tangents, batches or what else no operator's gradient gives are asked for.

    To a compiler, by torch.func: it would take the tangents of an operator's results for zero.
    """
    if torch.compiler.is_compiling():
        return torch._C._functorch.get_dynamic_layer_stack_depth() > 0
    with torch.no_grad():
        seen = [x for x in given if x is not None]
        return backend.of(*seen).differentiates(*seen)


def traced() -> bool:
    """Whether torch.jit.trace or a mode like that of make_fx sees all calls of torch, no others."""
    return bool(torch._C._get_tracing_state()) or torch._C._len_torch_dispatch_stack() > 0


def recorded(*given: torch.Tensor | None) -> bool:
    """Whether autograd records what becomes of ``given``."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given)


def differentiable(
    reference: Callable[..., Any], given: Sequence[Any], cotangents: Sequence[torch.Tensor]
) -> list[torch.Tensor | None]:
    """Return the gradients by ``given`` so that they have derivatives, by ``reference(*given)``."""
    own = [None if x is None else x.view_as(x) for x in given]  # a tensor may be given twice
    asked: list[torch.Tensor] = [x for x in own if x is not None and x.requires_grad]
    found = iter(torch.autograd.grad(reference(*own), asked, cotangents, create_graph=True))
    return [next(found) if x is not None and x.requires_grad else None for x in own]


def empties(*like: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return contiguous tensors with the shapes and dtypes of ``like``, for results."""
    return tuple(x.new_empty(x.shape) for x in like)


def numpy_view(x: torch.Tensor | None) -> np.ndarray[Any, Any] | None:
    """Return ``x`` as a NumPy array on the same memory."""
    return None if x is None else x.detach().resolve_conj().resolve_neg().numpy()


def tensors(*results: np.ndarray[Any, Any]) -> tuple[torch.Tensor, ...]:
    """Return ``results`` as tensors on the same memory."""
    return tuple(map(torch.from_numpy, results))

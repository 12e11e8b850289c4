"""What a network does between its products for one token, by numba's kernels on tensors' memory."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from ssmcore_numba import steps

from ssmcore_torch._ops import tensors, traced

__all__ = ["STEPS", "plain"]

Tensor = torch.Tensor


def plain(x: Tensor) -> bool:
    """Whether ``x`` is on the CPU and nothing is recorded, traced or cast now."""
    return (
        x.device.type == "cpu"
        and type(x) in (torch.Tensor, torch.nn.Parameter)
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and torch._C._functorch.get_dynamic_layer_stack_depth() == 0
        and torch.autograd.forward_ad._current_level < 0
        and not torch.is_autocast_enabled("cpu")
        and not traced()
    )


def _view(x: Any) -> Any:
    """Return a tensor as an array on the same memory; what is none as it is."""
    if not isinstance(x, Tensor):
        return x
    return x.numpy(force=True) if x.requires_grad or x.is_neg() else x.numpy()


def _on_tensors(run: Callable[..., Any]) -> Callable[..., Any]:
    def call(*given: Any) -> Any:
        found = run(*map(_view, given))
        return tensors(*found) if isinstance(found, tuple) else torch.from_numpy(found)

    return call


STEPS: Mapping[str, Callable[..., Any]] = types.MappingProxyType(
    {name: _on_tensors(getattr(steps, name)) for name in steps.__all__}
)
"""As in ``ssmcore.backend.Backend.steps``."""

"""PyTorch as an ssmcore backend."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import array_api_compat
import numpy as np

from ssmcore import arrays
from ssmcore.backend import Backend, native
from ssmcore.errors import SSMError
from ssmcore.typing import Namespace

__all__ = ["TorchBackend"]


@functools.cache
def _native() -> Mapping[str, Callable[..., Any]]:
    if not native():
        return {}
    from ssmcore_torch._primitives import PRIMITIVES

    return PRIMITIVES


@functools.cache
def _kernels() -> Mapping[str, str]:
    from ssmcore_torch._ops import KERNELS

    return KERNELS


@functools.cache
def _elementwise() -> Mapping[str, Callable[[Any], Any]]:
    from torch.nn import functional

    return {
        "sigmoid": functional.sigmoid,
        "silu": functional.silu,
        "softplus": functools.partial(functional.softplus, threshold=40.0),
        "gelu": functional.gelu,
        "gelu_tanh": functools.partial(functional.gelu, approximate="tanh"),
    }


class TorchBackend(Backend):
    """PyTorch: CPU and CUDA, float64, autograd; imported on first use only."""

    name = "torch"
    library = "torch"
    install = 'pip install "ssmcore[torch]"'
    gradients = True
    open_transforms = True
    one_device = True
    word = "int64"  # uint32 is there but cannot be multiplied

    @property
    def xp(self) -> Namespace:
        """The namespace, by an import statement: torch.compile follows no importlib call."""
        import array_api_compat.torch

        import ssmcore_torch._vector_math  # noqa: F401  (whose import makes first calls)

        return array_api_compat.torch

    def owns(self, x: object) -> bool:
        """Whether ``x`` is a torch tensor."""
        return bool(array_api_compat.is_torch_array(x))

    def devices(self) -> list[str]:
        """CPU first, then every CUDA device that answers."""
        import torch

        return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]

    def from_numpy(self, x: np.ndarray[Any, Any], device: Any = None) -> Any:
        """Return a tensor with a copy of ``x``; read-only and strided input is fine."""
        import torch

        import ssmcore_torch._vector_math  # noqa: F401  (whose import makes first calls)

        return torch.tensor(np.asarray(x, order="C"), device=device)

    def to_numpy(self, x: Any) -> np.ndarray[Any, Any]:
        """Return a NumPy copy on the host, detached from the graph; bfloat16 becomes float32."""
        import torch

        self.check_values(x)
        host = x.detach().resolve_conj().resolve_neg().cpu()
        host = host.float() if host.dtype is torch.bfloat16 else host
        out: np.ndarray[Any, Any] = host.numpy().copy()
        return out

    def concrete(self, x: Any) -> bool:
        """False while torch.compile or torch.func traces."""
        import torch

        return type(x) in (torch.Tensor, torch.nn.Parameter) and not (
            torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(x)
        )

    def leaves_open(self, size: Any) -> bool:
        """While torch.export traces a dynamic axis."""
        import torch

        return isinstance(size, torch.SymInt)

    def differentiates(self, *given: Any) -> bool:
        """Whether autograd records ``given``, or torch.compile, torch.func or a dual level may."""
        import torch
        from torch.autograd import forward_ad

        if torch.is_grad_enabled() and any(x.requires_grad for x in given):
            return True
        if not all(map(self.concrete, given)):
            return True
        dual = forward_ad._current_level >= 0  # of the levels that are open
        return dual and any(
            forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]
            for x in given
        )

    def check_values(self, x: Any) -> None:
        """Raise SSMError for sparse, nested and quantised tensors and those on the meta device."""
        import torch

        if x.is_meta:
            msg = "expected a tensor with values, got one on device 'meta'; materialise it first"
            raise SSMError(msg)
        if x.layout is not torch.strided or x.is_quantized or x.is_nested:
            kind = "nested" if x.is_nested else f"{x.layout}, {x.dtype}"
            msg = f"expected a dense tensor, got one that is not ({kind}); convert it first"
            raise SSMError(msg)

    def fuses_steps(self, x: Any) -> bool:
        """On CUDA devices, where the kernels run."""
        return bool(x.is_cuda) and "selective_scan" in self.primitives()

    def steps(self, x: Any) -> Mapping[str, Callable[..., Any]]:
        """Numba's kernels on the CPU, where nothing is recorded and nothing traces."""
        if "linear_scan" not in self.primitives() or not _kernels().get("cpu"):
            return {}
        from ssmcore_torch import _steps

        return _steps.STEPS if _steps.plain(x) else {}

    def product(self, u: Any, weight: Any) -> Any:
        """Return u weight^T by torch's own function."""
        from torch.nn.functional import linear

        return linear(u, weight)

    def primitives(self) -> Mapping[str, Callable[..., Any]]:
        """Kernels of numba on the CPU and of Triton on CUDA devices, where these are installed."""
        return _native()

    def without_gradients(self) -> AbstractContextManager[Any]:
        """Return ``torch.no_grad()``."""
        import torch

        return torch.no_grad()

    def stop_gradient(self, x: Any) -> Any:
        """Return ``x.detach()``."""
        return x.detach()

    def wait(self, x: Any) -> Any:
        """Return ``x`` when all work on its device is done; work on the CPU always is."""
        import torch

        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        return x

    def elementwise(self) -> Mapping[str, Callable[[Any], Any]]:
        """Torch's own, one kernel each."""
        return _elementwise()

    def checkpoint(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``fn`` through ``torch.utils.checkpoint``; nothing in it draws random numbers."""
        from torch.utils.checkpoint import checkpoint

        return functools.partial(checkpoint, fn, use_reentrant=False, preserve_rng_state=False)

    def value_and_grad(self, fn: Callable[[Any], Any], tree: Any) -> tuple[Any, Any]:
        """Return ``fn(tree)`` and its gradient by autograd."""
        import torch

        inputs = arrays.tree_map(lambda x: x.detach().clone().requires_grad_(True), tree)
        value = fn(inputs)
        flat = [x for _, x in arrays.leaves(inputs)]
        grads = iter(torch.autograd.grad(value, flat, materialize_grads=True))
        return value.detach(), arrays.tree_map(lambda _: next(grads), inputs)

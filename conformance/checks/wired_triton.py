"""What torch makes of operators that run Triton's kernels; run by pytest with the plugin
``checks.triton_interpreted``, which test_triton_kernels.py does.

Operators are judged by torch.library.opcheck, their values by the suite's adjoints, run beside.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from checks.triton_interpreted import LAUNCHED
from ssmcore_torch import _cauchy, _ops, _short, modules
from torch._subclasses.fake_tensor import FakeTensorMode

import ssmcore as ssm
from ssmcore import backend
from ssmcore.primitives import REFERENCES, implementation

R, L, H, N, K = 2, 3, 2, 2, 3
KEEP = torch.tensor([[True, False, True]])
OPS = torch.ops.ssmcore


def draw(*shape: int, dtype: Any = torch.float64, positive: bool = False) -> Any:
    rng = np.random.default_rng(sum(shape))
    values = rng.uniform(0.1, 1, shape) if positive else rng.standard_normal(shape)
    if dtype.is_complex:
        values = values + 1j * rng.standard_normal(shape)
    return torch.tensor(values).to(dtype)


def scan(dtype: Any = torch.float64, constant: bool = False) -> list[Any]:
    return [0.5 * draw(R, 1 if constant else L, H, dtype=dtype), draw(R, L, H, dtype=dtype), KEEP]


def selective(length: int = L) -> list[Any]:
    u, delta = draw(R, length, H), draw(R, length, H, positive=True)
    return [u, delta, -draw(H, N, positive=True), draw(R, length, N), draw(R, length, N), draw(H)]


def short() -> list[Any]:
    return [draw(R, L, H), draw(K, H), draw(H), draw(R, K - 1, H)]


def dplr() -> list[Any]:
    pole, P, B, C = (draw(*n, H, N, dtype=torch.complex128) for n in ((), (1,), (), ()))
    return [draw(H, positive=True), pole - pole.real.abs() - pole.real - 0.1, P, B, C]


Call = tuple[Callable[..., Any], list[Any], set[str]]
CALLS: dict[str, Callable[[], Call]] = {
    "linear_scan": lambda: (
        lambda a, b: ssm.linear_scan(a, b, reset=~KEEP, reverse=True),
        scan(torch.complex128)[:2],
        {"linear_scan_kernels.forward", "linear_scan_kernels.backward"},
    ),
    "selective_scan": lambda: (
        ssm.selective_scan,
        selective(),
        {"selective_scan_kernels.forward", "selective_scan_backward_kernel.backward"},
    ),
    "short_convolution": lambda: (
        lambda *x: ssm.short_convolution(*x)[0],
        short(),
        {"short_convolution_kernels.forward", "short_convolution_kernels.backward"},
    ),
    "dplr_kernel": lambda: (
        lambda dt, Lambda, P, B, C: ssm.dplr_kernel(dt, Lambda, P, B, C, 5),
        dplr(),
        {"cauchy_kernels.forward", "cauchy_kernels.backward"},
    ),
}
"""Each primitive as a function of tensors, some tensors, and the kernels that a gradient runs."""


def launched(call: Callable[[], Any]) -> set[str]:
    """Return the kernels that ``call`` runs."""
    before = LAUNCHED.copy()
    call()
    return set(LAUNCHED - before)


def gradients(fn: Callable[..., Any], given: list[Any]) -> list[Any]:
    """Return fn(*given) and the gradients of its sum of squares."""
    inputs = [x.clone().requires_grad_() for x in given]
    y = fn(*inputs)
    return [y.detach(), *torch.autograd.grad(y.abs().square().sum(), inputs)]


@pytest.mark.parametrize("name", CALLS)
def test_gradients_run_the_kernels(name: str) -> None:
    fn, given, kernels = CALLS[name]()
    assert launched(lambda: gradients(fn, given)) == kernels


# array-api-compat caches the class checks that torch.compile traces through, and torch says so.
@pytest.mark.filterwarnings("ignore:.*lru_cache.*:UserWarning")
@pytest.mark.parametrize("name", CALLS)
def test_compiled_as_one_graph_they_are_the_same(name: str) -> None:
    """The graph, and that of the gradient, call the operators: outputs equal bit for bit."""
    fn, given, kernels = CALLS[name]()
    torch.compiler.reset()
    compiled = torch.compile(fn, fullgraph=True, backend="aot_eager")
    found: list[Any] = []
    assert launched(lambda: found.extend(gradients(compiled, given))) == kernels
    for got, expected in zip(found, gradients(fn, given), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found[0], fn(*given), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*lru_cache.*:UserWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", ["linear_scan", "selective_scan"])
def test_compiled_tangents(name: str) -> None:
    """An operator has none, and a compiler would take them for zero: not the operator runs."""
    fn, given, _ = CALLS[name]()

    def tangent(*x: Any) -> Any:
        return torch.func.jvp(fn, x, x)[1]

    expected = tangent(*given)
    torch.compiler.reset()
    found = torch.compile(tangent, fullgraph=True, backend="aot_eager")(*given)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", CALLS)
def test_second_derivatives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of the gradient's sum of squares is that of the reference alone."""
    fn, given, _ = CALLS[name]()

    def twice() -> list[Any]:
        inputs = [x.clone().requires_grad_() for x in given]
        first = torch.autograd.grad(fn(*inputs).abs().square().sum(), inputs, create_graph=True)
        slope = torch.stack([x.abs().square().sum() for x in first]).sum()
        return list(torch.autograd.grad(slope, inputs))

    found = twice()
    monkeypatch.setattr(type(backend.load("torch")), "primitives", lambda _: {})
    for got, expected in zip(found, twice(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@functools.cache
def operators() -> dict[str, tuple[Any, list[Any]]]:
    """Return every operator with arguments: with every optional one, or without."""
    a, b, keep = scan(torch.complex128)
    one, _, _ = scan(constant=True)
    start, state = draw(R, H), draw(R, H, N)
    u, delta, A, B, C, D = selective()
    saved = OPS.selective_scan(u, delta, A, B, C, D, state, None, True)[2]
    convolved, weight, bias, before = short()
    z, x, v = (draw(*n, dtype=torch.complex128) for n in ((5,), (H, N), (H, N, 4)))
    c = torch.zeros_like(z)  # no pole
    everywhere = keep.expand(R, L)
    return {
        "linear_scan, complex": (OPS.linear_scan, [a, b, start + 0j, keep, True]),
        "linear_scan, constant": (OPS.linear_scan, [one, b.real, start, None, False]),
        "linear_scan_backward": (OPS.linear_scan_backward, [a, b, b, start + 0j, keep, False]),
        "selective_scan": (OPS.selective_scan, [u, delta, A, B, C, D, state, everywhere, True]),
        "selective_scan, no D": (OPS.selective_scan, [u, delta, A, B, C, None, state, None, False]),
        "selective_scan, a step": (OPS.selective_scan, [*selective(1), state, None, False]),
        "selective_scan_backward": (
            OPS.selective_scan_backward,
            [u, delta, A, B, C, D, everywhere, saved, u, state],
        ),
        "short_convolution": (OPS.short_convolution, [convolved, weight, bias, before]),
        "short_convolution_backward": (
            OPS.short_convolution_backward,
            [convolved, weight, before, convolved, before],
        ),
        "cauchy_sums": (OPS.cauchy_sums, [z, c, x, v]),
        "cauchy_sums_backward": (OPS.cauchy_sums_backward, [z, c, x, v, draw(H, 5, 4) + 0j]),
    }


@pytest.mark.parametrize("name", operators())
def test_operators_are_what_they_say(name: str) -> None:
    """Schema, aliases, fake results (shapes, strides, dtypes), gradients traced, any shape."""
    operator, given = operators()[name]
    tests = ["test_schema", "test_faketensor"]
    if not name.endswith("backward"):
        tests += ["test_autograd_registration", "test_aot_dispatch_dynamic"]
    transposed = [
        x.mT.contiguous().mT if isinstance(x, torch.Tensor) and x.ndim > 1 else x for x in given
    ]
    found = torch.library.opcheck(operator.default, tuple(transposed), test_utils=tests)
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", operators())
def test_fake_tensors_of_a_gpu(name: str) -> None:
    """On a device that is not there: results on it, as those of the kernels in all else."""
    operator, given = operators()[name]
    expected = _listed(operator(*given))
    mode = FakeTensorMode(allow_non_fake_inputs=False)
    with mode:
        fakes = [
            torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")
            if isinstance(x, torch.Tensor)
            else x
            for x in given
        ]
        found = _listed(operator(*fakes))
    for got, real in zip(found, expected, strict=True):
        assert got.device.type == "cuda"
        assert (got.shape, got.stride(), got.dtype) == (real.shape, real.stride(), real.dtype)


def _listed(results: Any) -> list[Any]:
    return [results] if isinstance(results, torch.Tensor) else list(results)


def test_a_single_step_has_a_kernel_of_its_own() -> None:
    given, start = selective(1), draw(R, H, N)

    def run() -> Any:
        return ssm.selective_scan(*given, initial=start, return_state=True)

    assert launched(run) == {"selective_step_kernel.step"}
    expected = REFERENCES["selective_scan"](*given, initial=start, reset=None)
    for got, want in zip(run(), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-14)


def test_what_no_kernel_takes_runs_as_the_reference() -> None:
    u, delta, A, B, C, D = selective()
    dt, Lambda, P, input_row, output = dplr()
    taps = draw(_short.MOST_TAPS + 1, H)
    ranks = P.expand(_cauchy.MOST_RANK + 1, H, N)
    own = B[..., None, :].expand(R, L, H, N)
    assert launched(lambda: ssm.short_convolution(u, taps)) == set()
    assert launched(lambda: ssm.dplr_kernel(dt, Lambda, ranks, input_row, output, 5)) == set()
    scan_of_the_reference = {"linear_scan_kernels.forward"}
    assert launched(lambda: ssm.selective_scan(u, delta, A, own, C, D)) == scan_of_the_reference
    assert implementation("causal_convolution", u) is REFERENCES["causal_convolution"]


@pytest.mark.parametrize("name", ["S6", "LRU", "S4"])
def test_autocast_lowers_no_precision(name: str) -> None:
    """Of layers; of primitives too, which refuse what autocast has lowered."""
    module = getattr(modules, name)(d_model=2, d_state=4)
    u = draw(1, 4, 2, dtype=torch.float32)
    y = module(u)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = u @ torch.ones(2, 2)
        assert torch.equal(module(u), y)
        assert torch.equal(ssm.linear_scan(u, u), ssm.linear_scan(u, u))
        assert ssm.linear_scan(u, u).dtype == torch.float32
        assert ssm.short_convolution(u, u[0, :2])[0].dtype == torch.float32
    assert low.dtype == torch.bfloat16
    with pytest.raises(ssm.SSMError, match="dtype bfloat16"):
        ssm.linear_scan(low, low)


@pytest.mark.filterwarnings("ignore:.*lru_cache.*:UserWarning")
@pytest.mark.parametrize(
    ("name", "operator"), [("S6", "selective_scan"), ("LRU", "linear_scan"), ("S4", "cauchy_sums")]
)
def test_export_keeps_the_operators(name: str, operator: str) -> None:
    module = getattr(modules, name)(d_model=2, d_state=4)
    u, mode = draw(1, 4, 2, dtype=torch.float32), "convolution" if name == "S4" else "scan"
    program = torch.export.export(module, (u,), {"mode": mode})
    graphs = [part.graph for part in program.graph_module.modules() if hasattr(part, "graph")]
    called = {str(node.target) for graph in graphs for node in graph.nodes}
    assert f"ssmcore.{operator}.default" in called
    assert torch.equal(program.module()(u, mode=mode), module(u, mode=mode))


def test_kernels_of_this_process() -> None:
    assert _ops.KERNELS["cpu"] == "triton"
    assert LAUNCHED

"""The CPU on which CuPy's kernels are tested notices what a GPU would do to a wrong kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks.cushim import host
from ssmcore_cuda.source import Source
from ssmcore_cupy import launch, linear

pytestmark = pytest.mark.skipif(host.missing() is not None, reason=str(host.missing()))

ORDERS = (host.FORWARD, host.BACKWARD, 7, 8)


class Text(Source):
    """A kernel given by its text."""

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "text", text)


def run(text: str, *arguments: Any, threads: int = 64, order: int = host.FORWARD) -> None:
    source = f'extern "C" __global__ void __launch_bounds__(64) kernel({text}'
    host.HostLaunch(order)(Text(source), "kernel", 2, threads, arguments)


SUM = """const float* x, float* y) {
    __shared__ float all[64];
    all[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
    __syncthreads();
    y[blockIdx.x * 64 + threadIdx.x] = all[63 - threadIdx.x] + blockDim.x + 1000 * gridDim.x;
}"""


@pytest.mark.parametrize("order", ORDERS)
def test_threads_blocks_shared_memory_and_barriers(order: int) -> None:
    x, y = np.arange(128, dtype="float32"), np.empty(128, "float32")
    run(SUM, x, y, order=order)
    assert np.array_equal(y, x.reshape(2, 64)[:, ::-1].reshape(-1) + 2064)


@pytest.mark.parametrize("order", [host.FORWARD, host.BACKWARD])
def test_without_the_barrier_another_order_of_threads_reads_what_is_not_there(order: int) -> None:
    x, y = np.arange(128, dtype="float32"), np.empty(128, "float32")
    run(SUM.replace("__syncthreads();", ""), x, y, order=order)
    assert np.isnan(y).any()


@pytest.mark.parametrize("order", ORDERS)
def test_shuffles(order: int) -> None:
    y = np.empty(64, "float64")
    run("double* y) { y[threadIdx.x] = __shfl_xor_sync(~0u, (double)threadIdx.x, 5); }", y)
    assert np.array_equal(y, np.arange(64) ^ 5)


@pytest.mark.parametrize(
    "body",
    [
        "if (threadIdx.x < 16) y[0] = __shfl_xor_sync(~0u, 1.f, 1);",
        "if (threadIdx.x < 40) __syncthreads(); else __shfl_xor_sync(~0u, 1.f, 1);",
    ],
)
def test_threads_that_wait_for_ever(body: str) -> None:
    with pytest.raises(host.StuckError):
        run("float* y) { " + body + " }", np.empty(1, "float32"), threads=48)


def test_writing_outside_of_an_output() -> None:
    for index in ("-1", "n"):
        with pytest.raises(AssertionError, match="outside"):
            run(f"float* y, long long n) {{ y[{index}] = 1; }}", np.empty(4, "f4"), np.int64(4))


def test_reading_outside_of_an_input_or_not_writing_an_output() -> None:
    x, y = np.ones(4, "float32"), np.ones(4, "float32")
    run("const float* x, float* y) { y[0] = x[4]; y[1] = x[0]; }", x, y)
    assert np.array_equal(y, [np.nan, 1, np.nan, np.nan], equal_nan=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(4), np.int64(0)), "an array of 4 bytes"),
        ((np.ones(4, "float32"), np.int32(0)), "a number of 8 bytes"),
        ((np.ones(4, "float32"), np.ones(4, "int64")), "a number of 8 bytes"),
        ((np.int64(0), np.int64(0)), "an array of 4 bytes"),
        ((np.ones(4, "float32"),), "takes 2 arguments"),
    ],
)
def test_arguments_that_do_not_fit(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        run("const float* x, long long n) {}", *arguments)


def test_no_array_is_a_null_pointer() -> None:
    y = np.empty(1, "float32")
    run("const float* x, float* y) { y[0] = x == nullptr; }", launch.NULL, y)
    assert y[0] == 1


class Spoiled(host.HostLaunch):
    """Launches with one barrier of the kernel taken out."""

    def __init__(self, order: int, barrier: int) -> None:
        super().__init__(order)
        self.barrier = barrier

    def __call__(self, source: Source, *rest: Any) -> None:
        before, *parts = source.text.split("__syncthreads();")
        assert len(parts) > self.barrier
        barriers = ["__syncthreads();"] * len(parts)
        barriers[self.barrier] = ""
        text = before + "".join(b + part for b, part in zip(barriers, parts, strict=True))
        super().__call__(Text(text), *rest)


@pytest.mark.parametrize("barrier", [0, 1])
def test_a_barrier_that_linear_scan_lacks_is_noticed(barrier: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((1, 200, 32)), rng.standard_normal((1, 200, 32))
    right = linear.linear_scan(host.HostLaunch(), a, b, None, reset=None, reverse=False)
    wrong = [
        linear.linear_scan(Spoiled(order, barrier), a, b, None, reset=None, reverse=False)
        for order in (host.FORWARD, host.BACKWARD)
    ]
    assert any(not np.allclose(h, right) for h in wrong)

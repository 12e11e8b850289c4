"""Every kernel in CUDA C compiles for a GPU (sm_90) and keeps all it computes with in registers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from checks.cuda_compiler import MISSING, Resources, compiler
from ssmcore_cuda import linear, selective
from ssmcore_cuda.source import FOLDER, Source
from ssmcore_cupy.cauchy import MOST_RANK, dplr_kernel
from ssmcore_cupy.convolution import MOST_TAPS, short_convolution
from ssmcore_cupy.diagonal import diagonal_scan
from ssmcore_cupy.linear import linear_scan
from ssmcore_cupy.selective import Given, selective_scan
from ssmcore_cupy.selective_backward import backward, checkpoints_for

REALS = ("float32", "float64")


class Recorder:
    """A launcher that only notes what it was to launch."""

    def __init__(self) -> None:
        self.sources: dict[Source, None] = {}

    def __call__(
        self, source: Source, name: str, blocks: int, threads: int, arguments: Sequence[Any]
    ) -> None:
        assert 0 < blocks < 1 << 31
        assert 0 < threads <= 1024
        assert len(arguments) < 64
        self.sources[source] = None
        for x in arguments:
            if isinstance(x, np.ndarray) and x.flags.writeable:
                x.fill(0)


def _linear_scans(launch: Recorder) -> None:
    for dtype in ("float32", "float64", "complex64", "complex128"):
        for varies, restarts in itertools.product((False, True), repeat=2):
            b, reset = np.ones((2, 40, 3), dtype), np.ones(40, bool) if restarts else None
            linear_scan(launch, b if varies else b[0, 0], b, None, reset=reset, reverse=False)
    for length in (1, 5):
        b = np.ones((2, length, 3), "float32")
        linear_scan(launch, b, b, None, reset=None, reverse=False)
    for dtype in ("float32", "complex128"):  # as JAX has them
        packed = linear.launch(
            (2, 40, 3), dtype, 1, varies=True, resets=True, shifted=True, packed=True
        )
        launch.sources[packed.source] = None


def _diagonal_scans(launch: Recorder) -> None:
    shapes = ((8, 40, 8192, 8), (2, 40, 3, 13), (1, 600, 9, 128), (1, 1, 3, 64))
    for dtype, (rows, length, channels, states) in itertools.product(
        ("float32", "complex128"), shapes
    ):
        a = np.ones((channels, states), dtype)
        u = np.broadcast_to(a.real[0, 0], (rows, length, channels))
        reset = None if channels < 9 else np.ones(length, bool)
        diagonal_scan(launch, a, a, a, u, None, reset=reset, reverse=False)


def _selective_scans(launch: Recorder) -> None:
    shapes = ((8, 40, 8192, 16), (8, 40, 8192, 256), (2, 40, 3, 13), (1, 256, 9, 16), (2, 1, 3, 16))
    for dtype, (rows, length, channels, states) in itertools.product(REALS, shapes):
        u = np.broadcast_to(np.ones((), dtype), (rows, length, channels))
        B, A = u[..., :1] * np.ones(states, dtype), np.ones((channels, states), dtype)
        reset = None if channels < 9 else np.ones(length, bool)
        selective_scan(launch, u, u, A, B, B, None, initial=None, reset=reset)
    chosen = selective.layout(6, 40, 13, 8)
    compiled_for = selective.constants(chosen, "float64", 13, resets=True)
    for reduce in (0, 1):  # as JAX has them
        flags = ("REDUCE", reduce), ("PACKED", 1)
        launch.sources[Source("selective_scan.cu", (*compiled_for, *flags))] = None


def _short_convolutions(launch: Recorder) -> None:
    for dtype, length, taps in itertools.product(REALS, (40, 1), (4, MOST_TAPS)):
        u = np.ones((2, length, 3), dtype)
        short_convolution(launch, u, np.ones((taps, 3), dtype), None, None)


def _dplr_kernels(launch: Recorder) -> None:
    for dtype, rank in itertools.product(("complex64", "complex128"), (0, 1, MOST_RANK)):
        one = np.ones((2, 4), dtype)
        dplr_kernel(launch, one[:, 0].real, -one, np.ones((rank, 2, 4), dtype), one, one, 9)


def _selective_gradients(launch: Recorder) -> None:
    for dtype, (length, states) in itertools.product(REALS, ((40, 16), (40, 128), (1, 3))):
        u, A = np.ones((2, length, 3), dtype), np.ones((3, states), dtype)
        B = np.ones((2, length, states), dtype)
        given = Given(u, u, A, B, B, None, np.ones((2, length), bool), None)
        backward(launch, given, checkpoints_for(given), u, None)


CALLS: dict[str, Callable[[Recorder], None]] = {
    "linear_scan.cu": _linear_scans,
    "cauchy.cu": _dplr_kernels,
    "diagonal_scan.cu": _diagonal_scans,
    "selective_scan.cu": _selective_scans,
    "selective_scan_backward.cu": _selective_gradients,
    "short_convolution.cu": _short_convolutions,
}


def _compile(text: str) -> dict[str, Resources]:
    found = compiler()
    if found is None:
        pytest.skip(MISSING)
    return found(text)


def test_every_file_is_compiled() -> None:
    assert set(CALLS) == {path.name for path in FOLDER.glob("*.cu")}


@pytest.mark.parametrize("file", CALLS)
def test_nothing_is_spilled(file: str) -> None:
    recorder = Recorder()
    CALLS[file](recorder)
    assert file in {source.file for source in recorder.sources}
    for source in recorder.sources:
        found = _compile(source.text)
        assert found
        for name, resources in found.items():
            print(name, dict(source.constants), resources)
            assert resources.spilled == 0, f"{name} {source.constants}: {resources}"


SPILLING = """
extern "C" __global__ void __launch_bounds__(1024, 2) wide(const double* in, double* out, int n) {
    double x[64];
    for (int i = 0; i < 64; ++i) x[i] = in[i * n + threadIdx.x];
    for (int k = 0; k < n; ++k)
        for (int i = 0; i < 64; ++i) x[i] = x[i] * x[(i + 1) % 64] + x[(i + 7) % 64];
    for (int i = 0; i < 64; ++i) out[i * n + threadIdx.x] = x[i];
}
"""


def test_the_check_on_spills_can_fail() -> None:
    assert _compile(SPILLING)["wide"].spilled > 0


def test_what_does_not_compile_raises() -> None:
    with pytest.raises(RuntimeError, match="undefined"):
        _compile('extern "C" __global__ void broken() { nothing(); }')

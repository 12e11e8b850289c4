"""CuPy's backend as a whole with NumPy as its library, its kernels run on the CPU."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import array_api_compat.numpy
import numpy as np
import pytest
import ssmcore_cupy
from checks.cushim import host
from checks.small_layers import EVERY, assert_close, numbers
from checks.small_networks import NETWORKS, inputs
from ssmcore_cuda.source import Source
from ssmcore_cupy import CupyBackend
from ssmcore_cupy.launch import NULL, RawLaunch, strided

import ssmcore as ssm
from ssmcore import backend

pytestmark = pytest.mark.skipif(host.missing() is not None, reason=str(host.missing()))


class OnNumpy(CupyBackend):
    """CuPy's backend with NumPy as its library."""

    library = "numpy"


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> host.HostLaunch:
    """Make CuPy's backend the owner of all NumPy arrays; returns what launches its kernels."""
    monkeypatch.setattr(ssmcore_cupy, "native", lambda: True)
    launch = host.HostLaunch(7)
    module = SimpleNamespace(
        ndarray=np.ndarray,
        asnumpy=np.array,
        array=np.array,
        cuda=SimpleNamespace(Device=contextlib.nullcontext),
    )
    path = OnNumpy(module, array_api_compat.numpy, launch)
    monkeypatch.setattr(backend, "_registered", {**backend._registered, "cupy": path})
    monkeypatch.setattr(backend, "_owner_of_type", {np.ndarray: path, np.float64: path})
    return launch


KERNELS = {
    ("LRU", "scan"): {"linear_scan"},
    ("LSSL", "scan"): set(),
    ("RGLRU", "scan"): {"linear_scan"},
    ("S4", "scan"): set(),
    ("S4", "convolution"): {"cauchy"},
    ("S4D", "scan"): {"diagonal_scan"},
    ("S5", "scan"): {"linear_scan"},
    ("S6", "scan"): {"selective_scan"},
    ("Bidirectional", "scan"): {"selective_scan"},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "mode"), KERNELS)
def test_every_layer_runs_its_kernels(
    name: str, mode: str, dtype: str, launch: host.HostLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With padding, in two precisions: the outputs of NumPy."""
    layer, u, lengths = EVERY[name], numbers(dtype), np.asarray([9, 4])
    with monkeypatch.context() as without:
        without.setattr(backend, "_owner_of_type", {})
        without.setattr(backend, "_registered", {})
        params = layer.init(0, backend="numpy", dtype=dtype)
        expected = layer(params, u, mode=mode, lengths=lengths)
    y = layer(params, u, mode=mode, lengths=lengths)
    assert set(launch.launched) == KERNELS[name, mode]
    assert_close(f"{name} {mode}", y, expected, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_of_s6_is_one_launch(dtype: str, launch: host.HostLaunch) -> None:
    """From the state and the input of a batch to the outputs: the steps of one pass."""
    layer, u = EVERY["S6"], numbers(dtype)
    params = layer.init(0, backend="cupy", dtype=dtype)
    expected, last = layer(params, u, mode="recurrence", return_state=True)
    assert launch.launched == []
    state, steps = None, []
    for t in range(u.shape[1]):
        y, state = layer.step(params, u[:, t], state)
        steps.append(y)
        assert len(launch.launched) == t + 1
    assert set(launch.launched) == {"selective_scan"}
    assert_close("outputs", np.stack(steps, axis=1), expected, dtype)
    assert state is not None
    assert_close("state", state["x_s6"], last["x_s6"], dtype)


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("mamba", {"selective_scan", "short_convolution"}),
        ("griffin", {"linear_scan", "short_convolution"}),
        ("classifier", {"linear_scan"}),
    ],
)
def test_networks_run_their_kernels(
    name: str, kernels: set[str], launch: host.HostLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With padding, then from the state that is left: the outputs of NumPy."""
    model, u, lengths = NETWORKS[name], inputs(NETWORKS[name]), np.asarray([9, 4])

    def run() -> list[Any]:
        params = model.init(0, backend="numpy")
        y, state = model(params, u, mode="scan", lengths=lengths, return_state=True)
        return [y, model.step(params, u[:, 0], state)[0]]

    with monkeypatch.context() as without:
        without.setattr(backend, "_owner_of_type", {})
        without.setattr(backend, "_registered", {})
        expected = run()
    for y, exact in zip(run(), expected, strict=True):
        assert_close(name, y, exact, "float32")
    assert set(launch.launched) == kernels


def test_references_run_where_native_code_is_switched_off(
    launch: host.HostLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssmcore_cupy, "native", lambda: False)
    ssm.linear_scan(np.full(4, 0.5), numbers("float64"))
    assert launch.launched == []


def test_every_kernel_replaces_a_primitive(launch: host.HostLaunch) -> None:
    """By name and signature; what is not replaced runs as the reference."""
    u, a = numbers("float64"), np.linspace(0.2, 0.9, 4)
    assert set(backend.of(u).primitives()) <= set(ssm.primitives.REFERENCES)
    ssm.linear_scan(a, u, u[:, 0], reset=u[..., 0] > 0, reverse=True)
    ssm.short_convolution(u, u[0, :3], a)
    ssm.selective_scan(u, np.abs(u), -np.ones((4, 4)), u, u, a, return_state=True)
    assert launch.launched == ["linear_scan", "short_convolution", "selective_scan"]


# ---- what hands kernels to CuPy ----------------------------------------------------------------


class Array(np.ndarray[Any, Any]):
    """A NumPy array that lies on a device, which notes when it is entered."""

    entered = 0

    @property
    def device(self) -> Any:
        return self

    def __enter__(self) -> None:
        Array.entered += 1

    def __exit__(self, *_: object) -> None:
        pass


class RawKernel:
    """Stands in for ``cupy.RawKernel``; takes what CuPy takes: arrays and NumPy's scalars."""

    compiled: list[tuple[str, str, tuple[str, ...]]]
    launched: list[Any]

    def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
        self.compiled.append((code, name, options))

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]
    ) -> None:
        assert all(isinstance(x, Array | np.generic) for x in args)
        self.launched.append((grid, block, args))


def test_raw_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source is compiled once, and launched on the device of its arrays."""
    monkeypatch.setattr(RawKernel, "compiled", [], raising=False)
    monkeypatch.setattr(RawKernel, "launched", [], raising=False)
    launch = RawLaunch(SimpleNamespace(RawKernel=RawKernel, ndarray=Array))
    x, before = np.ones(3).view(Array), Array.entered
    constants = (("REAL", "float"), ("TAPS", 4), ("WARPS", 1), ("ROWS", 1))
    for _ in range(2):
        source = Source("short_convolution.cu", constants)
        launch(source, "short_convolution", 5, 32, [NULL, x, np.int64(3)])
    ((code, name, options),) = RawKernel.compiled
    assert code == source.text
    assert code.startswith("#define REAL float\n#define TAPS 4\n")
    assert (name, options) == ("short_convolution", ("-std=c++17",))
    assert RawKernel.launched == [((5,), (32,), (NULL, x, np.int64(3)))] * 2
    assert Array.entered == before + 2


def test_strides_are_in_elements() -> None:
    x = np.ones((2, 3, 1, 4), "float32")[:, ::-2]
    assert strided(x, 4)[1:] == (12, -8, 0, 1)
    assert strided(None, 2) == (NULL, 0, 0)
    odd = np.zeros((2, 3), "float32")[:, :2].view("complex64")
    assert odd.strides == (12, 8)
    copy, *steps = strided(odd, 2)
    assert (copy.flags.c_contiguous, steps) == (True, [1, 0])

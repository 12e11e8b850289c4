"""CuPy's code path run on NumPy, and every layer on every GPU library where there is a device."""

from __future__ import annotations

import functools
import importlib.util
import itertools
from types import SimpleNamespace
from typing import Any

import array_api_compat.numpy
import numpy as np
import pytest
from checks.small_layers import EVERY, SEVEN, assert_close, numbers
from ssmcore_cupy import CupyBackend
from ssmcore_numpy import NumpyBackend

import ssmcore as ssm
from ssmcore import arrays, backend

# ---- CuPy's path without CuPy ----------------------------------------------------------------


class Device:
    """Stands in for cupy.cuda.Device: a context manager that takes an index or None."""

    entered: list[Any]

    def __init__(self, index: Any = None) -> None:
        self.index = index

    def __enter__(self) -> Device:
        self.entered.append(self.index)
        return self

    def __exit__(self, *_: object) -> None:
        pass


class OnNumpy(CupyBackend):
    """CuPy's backend with NumPy, which is always installed, as its library; without kernels."""

    library = "numpy"

    def primitives(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> OnNumpy:
    monkeypatch.setattr(Device, "entered", [], raising=False)
    module = SimpleNamespace(
        ndarray=np.ndarray,
        array=np.array,
        asnumpy=np.array,
        __version__="0.0",
        cuda=SimpleNamespace(Device=Device, runtime=SimpleNamespace(getDeviceCount=lambda: 2)),
    )
    path = OnNumpy(module, array_api_compat.numpy)
    monkeypatch.setattr(backend, "_registered", {**backend._registered, "cupy": path})
    return path


def _owning(cupy: OnNumpy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make CuPy's backend the owner of all NumPy arrays."""
    monkeypatch.setattr(backend, "_owner_of_type", {np.ndarray: cupy, np.float64: cupy})
    assert backend.of(np.ones(1)) is cupy


def test_cupy_names_itself(cupy: OnNumpy) -> None:
    assert cupy.version() == "0.0"
    assert cupy.devices() == ["cuda:0", "cuda:1"]
    assert cupy.owns(np.ones(1))
    assert not cupy.owns([1.0])


def test_move_to_cupy_enters_the_device_and_copies(cupy: OnNumpy) -> None:
    given = {"D": numbers("float64", (3,))}
    moved = ssm.move(given, backend="cupy", device=1, dtype="float32")
    assert Device.entered == [1]
    assert moved["D"].dtype == np.float32
    moved = ssm.move(given, backend="cupy")
    assert Device.entered == [1, None]
    moved["D"][:] = 0.0
    assert np.array_equal(given["D"], numbers("float64", (3,)))


def test_move_from_cupy_copies(cupy: OnNumpy, monkeypatch: pytest.MonkeyPatch) -> None:
    _owning(cupy, monkeypatch)
    given = {"D": numbers("float64", (3,))}
    moved = ssm.move(given, backend="numpy", dtype="float32")
    moved["D"][:] = 0.0
    assert moved["D"].dtype == np.float32
    assert np.array_equal(given["D"], numbers("float64", (3,)))
    kept = ssm.to_numpy(given)
    kept["D"][:] = 0.0
    assert np.array_equal(given["D"], numbers("float64", (3,)))


@pytest.mark.parametrize("mode", ["auto", "recurrence", "scan"])
@pytest.mark.parametrize("name", EVERY)
def test_cupys_path_runs_every_layer(
    name: str, mode: str, cupy: OnNumpy, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, u = EVERY[name], numbers("float64")
    params = layer.init(0, backend="cupy", dtype="float64")
    assert Device.entered
    _owning(cupy, monkeypatch)
    lengths = np.asarray([9, 4])
    y = layer(params, u, mode=mode, lengths=lengths)
    monkeypatch.undo()
    monkeypatch.setattr(NumpyBackend, "primitives", lambda _: {})
    # The same operations on the same library: equal to the last bit.
    assert np.array_equal(y, layer(params, u, mode=mode, lengths=lengths))
    assert np.max(np.abs(y)) > 0


def _calls(u: Any, a: Any) -> dict[str, Any]:
    wide, H = np.multiply.outer(np.ones(4), a), a
    pair = np.stack([a, a], axis=-1) + 0j
    return {
        "linear_scan": lambda: ssm.linear_scan(a, u),
        "diagonal_scan": lambda: ssm.diagonal_scan(H, wide.T, wide, u),
        "selective_scan": lambda: ssm.selective_scan(u, np.abs(u), -wide.T, u, u, a),
        "causal_convolution": lambda: ssm.causal_convolution(u, u[0]),
        "short_convolution": lambda: ssm.short_convolution(u, u[0, :3], a)[0],
        "diagonal_kernel": lambda: ssm.diagonal_kernel(pair, pair, 7),
        "dplr_kernel": lambda: ssm.dplr_kernel(a, -pair, pair[None], pair, pair, 7),
        "discretize": lambda: ssm.discretize(-pair, 0.5)[1],
    }


PRIMITIVES = list(_calls(numbers("float64"), np.ones(4)))


def test_all_primitives_are_called() -> None:
    assert {*ssm.primitives.REFERENCES, "discretize"} == set(PRIMITIVES)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_cupys_path_runs_every_primitive(
    name: str, cupy: OnNumpy, monkeypatch: pytest.MonkeyPatch
) -> None:
    _owning(cupy, monkeypatch)
    call = _calls(numbers("float64"), np.linspace(0.2, 0.9, 4))[name]
    y = call()
    monkeypatch.undo()
    monkeypatch.setattr(NumpyBackend, "primitives", lambda _: {})
    assert np.array_equal(y, call())
    assert np.max(np.abs(y)) > 0


# ---- arguments on several devices --------------------------------------------------------------


def _given() -> dict[str, dict[str, Any]]:
    """Return all the arrays that each primitive takes."""
    one, u, square = np.ones(4), numbers("float64"), np.ones((4, 4))
    pair, states = square + 0j, np.ones((*u.shape[:-2], 4, 4))
    h, reset = u[..., 0, :], np.zeros(u.shape[:-1], np.bool_)
    step = one + 0 * u
    given = {
        "linear_scan": {"a": one, "b": u, "initial": h, "reset": reset},
        "diagonal_scan": {"a": one, "B": square, "C": square, "u": u, "initial": h, "D": one},
        "selective_scan": {"u": u, "delta": step, "A": square, "B": u, "C": u, "D": one},
        "causal_convolution": {"u": u, "kernel": u[0]},
        "short_convolution": {"u": u, "weight": square, "bias": one, "state": u[..., :3, :]},
        "diagonal_kernel": {"a": pair, "coefficients": pair},
        "dplr_kernel": {"dt": one, "Lambda": -pair, "P": pair[None], "B": pair, "C": pair},
    }
    given["diagonal_scan"] |= {"reset": reset}
    given["selective_scan"] |= {"initial": states, "reset": reset}
    return given


@pytest.mark.parametrize("name", _given())
def test_arguments_on_several_devices_are_refused(name: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    tensors = {key: backend.load("torch").from_numpy(x) for key, x in _given()[name].items()}
    length = {"length": 7} if name.endswith("_kernel") else {}
    call = functools.partial(getattr(ssm, name), **length)
    call(**tensors)
    for key in tensors:
        with pytest.raises(ssm.SSMError, match=rf"{name}: arrays on one device .*{key} on meta"):
            call(**{**tensors, key: tensors[key].to("meta")})


@pytest.mark.parametrize("name", SEVEN)
def test_an_input_on_another_device_than_the_parameters_is_refused(name: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    layer = SEVEN[name]
    params, u = layer.init(0, backend="torch"), ssm.move(numbers("float32"), backend="torch")
    with pytest.raises(ssm.SSMError, match="params on cpu, u on meta"):
        layer(params, u.to("meta"))
    state = ssm.arrays.tree_map(lambda x: x.to("meta"), layer(params, u, return_state=True)[1])
    with pytest.raises(ssm.SSMError, match="on one device"):
        layer(params, u, state=state)


# ---- GPUs --------------------------------------------------------------------------------------


def _torch_cuda() -> tuple[str, Any]:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return "torch", "cuda"


def _jax_gpu() -> tuple[str, Any]:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    try:
        return "jax", jax.devices("gpu")[0]
    except RuntimeError as error:
        pytest.skip(f"JAX finds no GPU: {str(error).splitlines()[0]}")


def _cupy() -> tuple[str, Any]:
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("cupy is not installed")
    import cupy

    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"CuPy finds no CUDA device: {error}")
    return "cupy", 0


GPUS = {"torch-cuda": _torch_cuda, "jax-gpu": _jax_gpu, "cupy": _cupy}


@pytest.mark.parametrize("name", SEVEN)
@pytest.mark.parametrize("gpu", GPUS)
def test_every_layer_on_the_gpu_equals_numpy(gpu: str, name: str) -> None:
    library, device = GPUS[gpu]()
    layer = SEVEN[name]
    dtypes = ["float32", "float64"] if backend.load(library).has_float64() else ["float32"]
    modes = ["auto", "recurrence", "scan"]
    for dtype, mode in itertools.product(dtypes, modes):
        params = layer.init(0, backend=library, device=device, dtype=dtype)
        u = ssm.move(numbers(dtype), backend=library, device=device)
        with _full_precision(library):
            y = layer(params, u, mode=mode)
        assert arrays.device(y) == arrays.device(params["D" if "D" in params else "a_param"])
        assert "cpu" not in str(arrays.device(y)).lower()
        # NumPy always in float64, of the same rounded parameters and input.
        exact = layer(
            ssm.move(params, backend="numpy", dtype="float64"),
            numbers(dtype).astype("float64"),
            mode=mode,
        )
        assert_close(f"{name} {mode} on {gpu}", y, exact.astype(dtype), dtype)


def _full_precision(library: str) -> Any:
    """Return a context in which JAX does not round the factors of float32 products to TF32."""
    if library != "jax":
        return importlib.import_module("contextlib").nullcontext()
    return importlib.import_module("jax").default_matmul_precision("highest")

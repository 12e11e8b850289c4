"""One step of a network by native functions: the same as without them, on NumPy and on torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore import arrays, backend, networks
from ssmcore.blocks import Mamba, Residual, RMSNorm, ShortConvolution
from ssmcore.module import Module

pytest.importorskip("numba", reason="numba is not installed, and with it these functions")
torch = pytest.importorskip("torch", reason="torch is not installed")
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

NETWORKS: dict[str, Module] = {
    "mamba": networks.LanguageModel(11, Residual(Mamba(6, d_state=3)), n_layers=2),
    "one_tap": networks.LanguageModel(11, Residual(Mamba(6, d_conv=1, conv_bias=False))),
    "griffin": networks.griffin(11, 8, 3, heads=2, window=4),
    "s6": ssm.S6(5, d_state=17),
    "scaled": ssm.S6(5, dt_scale=0.5),
    "zoh": ssm.S6(5, discretization="zoh"),
    "identity": ShortConvolution(4, 3, activation="identity"),
    "gelu": ShortConvolution(4, 3, activation="gelu"),
}
NATIVE = {"rms_norm", "short_convolution", "s6", "gate"}
ULPS = 256
"""Roundings of a whole network, of the peak: sums of up to 17 numbers in each of 10 operations."""


@pytest.fixture(params=["numpy", "torch"])
def library(request: pytest.FixtureRequest) -> Iterator[backend.Backend]:
    owner = backend.load(request.param)
    with owner.without_gradients():
        yield owner


def example(owner: backend.Backend, model: Module, batch: tuple[int, ...], dtype: str) -> Any:
    """Return parameters, a state that is not zero, and the input of one step."""
    rng = np.random.default_rng(3)
    params = model.init(1, backend=owner.name, dtype=dtype)
    if model.tokens:
        before, now = rng.integers(0, 11, (*batch, 5)), rng.integers(0, 11, batch)
    else:
        before = rng.standard_normal((*batch, 5, model._d_input)).astype(dtype)
        now = rng.standard_normal((*batch, model._d_input)).astype(dtype)
    _, state = model(params, owner.from_numpy(before), return_state=True)
    return params, owner.from_numpy(np.asarray(now)), state


def outputs(owner: backend.Backend, model: Module, given: Any) -> list[np.ndarray[Any, Any]]:
    params, now, state = given
    y, after = model.step(params, now, state)
    return [owner.to_numpy(y), *(owner.to_numpy(x) for _, x in arrays.leaves(after))]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [(), (3,), (2, 0)])
@pytest.mark.parametrize("name", NETWORKS)
def test_native_steps_agree(
    library: backend.Backend,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    batch: tuple[int, ...],
    dtype: str,
) -> None:
    model = NETWORKS[name]
    given = example(library, model, batch, dtype)
    found = outputs(library, model, given)
    monkeypatch.setattr(type(library), "steps", lambda self, x: {})
    expected = outputs(library, model, given)
    for x, y in zip(found, expected, strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        allowed = ULPS * np.finfo(dtype).eps * np.abs(y).max(initial=0.0)
        error = np.abs(x - y).max(initial=0.0)
        print(f"{name} {batch} {dtype}: {error:.1e}, allowed {allowed:.1e}")
        assert error <= allowed


def test_native_steps_are_used(library: backend.Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    model = NETWORKS["mamba"]
    given = example(library, model, (2,), "float32")
    native, called = library.steps(given[0]["norm"]["scale"]), set()
    assert set(native) == NATIVE

    def counted(name: str) -> Any:
        def call(*arguments: Any) -> Any:
            called.add(name)
            return native[name](*arguments)

        return call

    monkeypatch.setattr(type(library), "steps", lambda self, x: {n: counted(n) for n in native})
    model.step(*given)
    assert called == NATIVE


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_in_its_channel(library: backend.Backend, bad: float) -> None:
    """By the rules of IEEE: exp(-x) inf is inf; the other channels do not see it."""
    model = NETWORKS["s6"]
    params, now, state = example(library, model, (2,), "float32")
    y, expected = outputs(library, model, (params, now, state))
    h = library.to_numpy(state["x_s6"]).copy()
    h[0, 1, 2] = bad
    y_bad, after = outputs(library, model, (params, now, {"x_s6": library.from_numpy(h)}))
    assert after[0, 1, 2] == bad or (np.isnan(bad) and np.isnan(after[0, 1, 2]))
    assert not np.isfinite(y_bad[0, 1])
    y_bad[0, 1], after[0, 1, 2] = y[0, 1], expected[0, 1, 2]
    np.testing.assert_array_equal(y_bad, y)
    assert np.abs(after - expected).max() <= 4 * np.finfo("float32").eps * np.abs(expected).max()


def test_torch_records_gradients_without_them() -> None:
    """Native functions have no gradients: nothing of them where one is recorded or traced."""
    owner, model = backend.load("torch"), NETWORKS["mamba"]
    with owner.without_gradients():
        params, now, state = example(owner, model, (2,), "float32")
    scale = params["norm"]["scale"]
    assert not owner.steps(scale)
    scale.requires_grad_(True)
    model.step(params, now, state)[0].sum().backward()
    assert float(scale.grad.abs().max()) > 0.0
    with owner.without_gradients():
        assert owner.steps(scale)
        seen: list[bool] = []

        def call(x: Any) -> Any:
            seen.append(bool(owner.steps(x)))
            return x

        torch.func.vmap(call)(scale)
        assert seen == [False]
        with torch.autograd.forward_ad.dual_level():
            assert not owner.steps(scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_silu_of_every_size_is_a_number(library: backend.Backend, dtype: str) -> None:
    """Also where e^-x is just below the largest number, and where it overflows."""
    edge = float(np.log(np.finfo(dtype).max))
    x = np.concatenate((np.linspace(-edge - 2, 2 - edge, 2001), [-1e30, 0.0, 1e30, np.inf]))
    x = x.astype(dtype)
    native = library.steps(library.from_numpy(x))["gate"]
    found = library.to_numpy(native(library.from_numpy(np.ones_like(x)), library.from_numpy(x)))
    with np.errstate(over="ignore"):
        expected = x / (1 + np.exp(-x))
    eps = float(np.finfo(dtype).eps)
    # 2^y is inf where y rounds to an exponent that is none: 0, not |x| over max / sqrt 2 or more
    last = edge * 2**0.5 / float(np.finfo(dtype).max)
    np.testing.assert_allclose(found, expected, rtol=ULPS * eps, atol=last)


def test_half_precision_inputs_take_no_native_step(library: backend.Backend) -> None:
    model = Mamba(6, d_state=3)
    params = model.init(1, backend=library.name, dtype="float32")
    u = library.from_numpy(np.ones((2, 6), "float16"))
    state = model.step(params, u)[1]
    y, _ = model.step(params, u, state)
    assert backend.dtype_name(y) == "float16"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["mamba", "griffin", "s6"])
def test_autocast_takes_no_native_step(name: str, dtype: Any) -> None:
    owner, model = backend.load("torch"), NETWORKS[name]
    with owner.without_gradients():
        params, now, state = example(owner, model, (2,), "float32")
        with torch.autocast("cpu", dtype=dtype):
            y = model.step(params, now, state)[0]
        expected = model.step(params, now, state)[0]
    error = float((y - expected).abs().max() / expected.abs().max())
    assert error <= 16 * torch.finfo(dtype).eps


@pytest.mark.parametrize("trace", [torch.jit.trace, lambda f, x: make_fx(f)(*x)])
@pytest.mark.parametrize("name", ["s6", "scan"])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*jit.*:DeprecationWarning")
def test_what_torch_traces_is_no_constant(name: str, trace: Any) -> None:
    """What torch records of a native call on its memory would be its result."""
    one = torch.ones(4, 3)

    def scan(u: Any) -> Any:
        return ssm.diagonal_scan(0.5 * one, one, one, u)

    model = ssm.S6(4)
    params = model.init(0, backend="torch")
    state = model.initial_state(params, (2,))
    call = scan if name == "scan" else lambda u: model.step(params, u, state)[0]
    u = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
    with torch.no_grad():
        traced = trace(call, (u,))
        assert float((traced(2.0 * u) - call(2.0 * u)).abs().max()) <= 1e-6


def test_a_native_step_takes_a_view_that_negates() -> None:
    u = torch.complex(torch.ones(3, 4), torch.full((3, 4), 2.0)).conj().imag
    norm = RMSNorm(4)
    params = norm.init(0, backend="torch")
    with torch.no_grad():
        y = norm.step(params, u)[0]
    assert float((y + 1.0).abs().max()) <= 1e-5

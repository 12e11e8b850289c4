"""Edges that once failed: narrow lengths, restarts after NaN, states of other layers, bad steps."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore import backend
from ssmcore_conformance.running import call, compiled

COMPILED = (("S4D", "scan"), ("S6", "recurrence"))
INTEGERS = ("uint8", "int8", "int16", "int32", "int64")
LAYERS = {
    "LSSL": ssm.LSSL(2, d_state=3),
    "S4": ssm.S4(2, d_state=4),
    "S4D": ssm.S4D(2, d_state=4),
    "S5": ssm.S5(2, d_state=4),
    "LRU": ssm.LRU(2, d_state=4),
    "S6": ssm.S6(2, d_state=3),
    "RGLRU": ssm.RGLRU(2),
}


def _input(L: int, batch: int = 2) -> Any:
    return np.random.default_rng(0).standard_normal((batch, L, 2)).astype("float32")


def _states_equal(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    # The shorter run rounds along another tree: 64 steps of eps each bound what that costs.
    tolerance = 64 * float(np.finfo(np.float32).eps)
    return all(
        np.abs(np.asarray(found[k]) - np.asarray(expected[k])).max() <= tolerance for k in expected
    )


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_lengths_of_any_integer_type(library: str, kind: str) -> None:
    """lengths may have any integer type."""
    if library not in backend.available():
        pytest.skip(f"{library} is not installed")
    used, layer, u = backend.load(library), LAYERS["LRU"], _input(300)
    params = layer.init(0, backend=library)
    lengths = used.from_numpy(np.asarray([100, 7], dtype=kind))
    for mode in ("recurrence", "scan", "convolution"):
        y, state = layer(params, used.from_numpy(u), mode=mode, lengths=lengths, return_state=True)
        y = used.to_numpy(y)
        assert not y[0, 100:].any()
        assert not y[1, 7:].any()
        assert y[0, :100].all(axis=-1).any()
        _, short = layer(params, used.from_numpy(u[:1, :100]), return_state=True)
        name = next(iter(short))
        assert _states_equal({name: state[name][:1]}, short)


@pytest.mark.parametrize("mode", ["recurrence", "scan"])
@pytest.mark.parametrize("name", LAYERS)
def test_nothing_crosses_a_restart_not_even_nan(ssm_backend: Any, name: str, mode: str) -> None:
    """NaN before a restart does not reach what comes after."""
    if ssm_backend.name == "jax" and (name, mode) not in COMPILED:
        pytest.skip("jax compiles each for seconds: two of them only")
    layer, u = LAYERS[name], _input(24)
    params, reset = layer.init(0), np.zeros((2, 24), bool)
    reset[:, 9] = True
    spoiled = u.copy()
    spoiled[:, 4] = np.nan
    run = compiled(ssm_backend.name, layer, mode, True)
    with np.errstate(invalid="ignore"):
        y, state = call(ssm_backend, run, params, spoiled, None, reset)
    clean, clean_state = call(ssm_backend, run, params, u, None, reset)
    assert np.isnan(y[:, 4]).any()
    # A kernel may go on by other instructions after NaN: a step rounds at most twice more.
    close = functools.partial(np.testing.assert_allclose, rtol=0)
    allowed = 2 * 24 * float(np.finfo(clean.dtype).eps)
    close(y[:, 9:], clean[:, 9:], atol=allowed * np.abs(clean).max())
    for key in state:
        close(state[key], clean_state[key], atol=allowed * np.abs(clean_state[key]).max())


@pytest.mark.parametrize(("one", "other"), [("S4", "S4D"), ("LSSL", "S6"), ("S5", "LRU")])
def test_the_state_of_another_layer_is_refused_though_its_shape_fits(one: str, other: str) -> None:
    """The state of another layer is refused though its shape fits."""
    layers = {"S5": ssm.S5(2, d_state=8), **{k: LAYERS[k] for k in LAYERS if k != "S5"}}
    layer, u = layers[other], _input(5)
    state = layers[one].initial_state(layers[one].init(0), (2,))
    with pytest.raises(ssm.SSMError, match="state of another layer"):
        layer(layer.init(0), u, state)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_selective_scan_refuses_steps_that_cannot_be(bad: float) -> None:
    """Negative and non-finite step sizes are refused."""
    u = np.ones((3, 1))
    delta = u.copy()
    delta[1] = bad
    with pytest.raises(ssm.SSMError, match=f"delta has the value {bad}"):
        ssm.selective_scan(u, delta, -np.ones((1, 2)), np.ones((3, 2)), np.ones((3, 2)))


def test_a_restart_inside_the_padding_is_invisible() -> None:
    """A restart inside the padding changes nothing."""
    both = ssm.Bidirectional.of(ssm.RGLRU(2, first_step_reset=False))
    params, u, reset = both.init(0), _input(10), np.zeros((2, 10), bool)
    reset[:, 6] = True
    lengths = np.asarray([6, 6])
    with_it = both(params, u, reset=reset, lengths=lengths)
    np.testing.assert_array_equal(with_it, both(params, u, lengths=lengths))


def test_move_refuses_what_it_would_have_to_lose() -> None:
    """move refuses what it would have to lose."""
    with pytest.raises(ssm.SSMError, match="complex array"):
        ssm.move(np.ones(2) * 1j, dtype="float32")
    with pytest.raises(ssm.SSMError, match="device 'nonsense'"):
        ssm.move(np.ones(2), device="nonsense")


def test_blocks_of_s5_are_those_of_the_original_where_they_fit() -> None:
    """S5 has 8 blocks where they fit, else 4, 2, 1."""
    imaginary = ssm.S5(2, d_state=256).init(0, dtype="float64")["Lambda_im"]
    np.testing.assert_array_equal(imaginary, np.tile(imaginary[:16], 8))
    assert ssm.S5(2, d_state=4).init(0)["Lambda_im"].shape == (2,)

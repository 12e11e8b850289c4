"""jax.export of layers, blocks and networks for any batch and any length."""

from __future__ import annotations

from typing import Any

import pytest
from checks.small_layers import assert_close

from ssmcore import SSMError, networks

jax = pytest.importorskip("jax", reason="jax is not installed")
ssm: Any = pytest.importorskip("ssmcore_jax", reason="jax is not installed")
_chunks: Any = pytest.importorskip("ssmcore_jax._chunks")

CASES: dict[str, Any] = {
    "S4D": lambda: ssm.S4D(4, d_state=4),
    "S5": lambda: ssm.S5(4, d_state=4),
    "H3": lambda: ssm.H3(4, d_state=4, taps=4),
    "mamba": lambda: ssm.Module(networks.mamba(vocab=7, d_model=4, n_layers=1)),
    "griffin": lambda: ssm.Module(networks.griffin(7, 8, 3, heads=2, window=5)),
}


def _input(model: Any, batch: Any, length: Any) -> Any:
    """Return numbers, or what stands for them where a size is a string."""
    tokens = model.definition.tokens
    shape = (batch, length) if tokens else (batch, length, 4)
    kind = jax.numpy.int32 if tokens else jax.numpy.float32
    if not all(isinstance(n, int) for n in shape):
        sizes = jax.export.symbolic_shape(", ".join(map(str, shape)))
        return jax.ShapeDtypeStruct(sizes, kind)
    if tokens:
        return jax.random.randint(jax.random.key(0), shape, 0, 7, kind)
    return jax.random.normal(jax.random.key(0), shape, kind)


def _exported(model: Any, batch: Any, length: Any) -> Any:
    return jax.export.export(jax.jit(lambda u: model(u)))(_input(model, batch, length))


def _check(model: Any, run: Any, *shapes: tuple[int, int]) -> None:
    for shape in shapes:
        u = _input(model, *shape)
        expected = jax.jit(lambda u: model(u))(u)
        assert_close(f"batch, length = {shape}", run.call(u), expected, "float32")


@pytest.mark.parametrize("name", CASES)
def test_for_any_batch(name: str) -> None:
    model = CASES[name]()
    _check(model, _exported(model, "batch", 24), (1, 24), (5, 24))


@pytest.mark.parametrize("name", CASES)
def test_for_any_length(name: str) -> None:
    model = CASES[name]()
    _check(model, _exported(model, 2, "length"), (2, 1), (2, 70))


@pytest.mark.parametrize("name", ["S4D", "S5", "mamba"])
def test_for_any_batch_where_rows_run_together(name: str, monkeypatch: Any) -> None:
    model = CASES[name]()
    monkeypatch.setattr(_chunks, "ENOUGH", {})
    run = _exported(model, "batch", 150)
    monkeypatch.undo()
    _check(model, run, (3, 150))


@pytest.mark.parametrize("layer", [lambda: ssm.S4(4, d_state=4), lambda: ssm.LSSL(4, d_state=4)])
def test_dense_transitions_want_one_length(layer: Any) -> None:
    model = layer()
    _check(model, _exported(model, "batch", 24), (3, 24))
    with pytest.raises(SSMError, match=r"length of u is left open .* one program for each length"):
        _exported(model, 2, "length")

"""torch.export of layers, blocks and networks for any length and batch."""

from __future__ import annotations

from typing import Any

import pytest
from checks.small_layers import assert_close

from ssmcore import SSMError, networks

torch = pytest.importorskip("torch", reason="torch is not installed")
ssm: Any = pytest.importorskip("ssmcore_torch", reason="torch is not installed")

_linear: Any = pytest.importorskip("ssmcore_torch._linear")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

TRACED, OTHERS = 24, (2, 70)


def _h3() -> Any:
    return ssm.H3(4, d_state=4, taps=4)


CASES: dict[str, Any] = {
    "H3": _h3,
    "H3 with heads": lambda: ssm.H3(4, d_state=4, taps=4, head_dim=2),
    "S4D classifier": lambda: ssm.SequenceClassifier(
        4, 3, ssm.SSMBlock(ssm.S4D(4, d_state=4)), n_layers=2
    ),
    "H3 classifier": lambda: ssm.SequenceClassifier(4, 3, ssm.Residual(_h3()), n_layers=1),
    "LocalAttention": lambda: ssm.LocalAttention(4, heads=1, window=5),
}
needs_kernels = pytest.mark.skipif("cpu" not in _linear.KERNELS, reason="numba is not installed")

SCANNING: dict[str, Any] = {
    "S5 classifier": lambda: ssm.SequenceClassifier(
        4, 3, ssm.SSMBlock(ssm.S5(4, d_state=4)), n_layers=1
    ),
    "Mamba": lambda: ssm.LanguageModel(7, ssm.Residual(ssm.Mamba(4)), n_layers=1),
    "Griffin": lambda: ssm.Module(networks.griffin(7, 8, 3, heads=2, window=5)),
}


def _input(model: Any, length: int, batch: int = 2) -> Any:
    generator = torch.Generator().manual_seed(length)
    if model.definition.tokens:
        return torch.randint(7, (batch, length), generator=generator)
    return torch.randn(batch, length, 4, generator=generator)


def _exported(model: Any, *, batch: Any = None) -> Any:
    axes = {1: torch.export.Dim("length", min=2, max=4096)}
    if batch is not None:
        axes[0] = batch
    u = _input(model, TRACED)
    with torch.no_grad():
        exported = torch.export.export(model, (u,), dynamic_shapes=(axes,), strict=False)
    return exported.module()


def _check(model: Any, run: Any, batch: int = 2) -> None:
    for length in OTHERS:
        u = _input(model, length, batch)
        with torch.no_grad():
            assert_close(f"L = {length}", run(u), model(u), "float32")


@pytest.mark.parametrize("name", CASES)
def test_for_any_length(name: str) -> None:
    model = CASES[name]().eval()
    _check(model, _exported(model))


@needs_kernels
@pytest.mark.parametrize("name", SCANNING)
def test_scans_for_any_length(name: str) -> None:
    model = SCANNING[name]().eval()
    _check(model, _exported(model))


def test_scans_for_any_length_want_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_linear, "KERNELS", {})
    with pytest.raises(SSMError, match=r"length is left open .* takes a native kernel"):
        _exported(SCANNING["S5 classifier"]())


def test_restarts_for_any_length() -> None:
    class WithReset(torch.nn.Module):  # type: ignore[misc,name-defined]
        definition = ssm.LocalAttention(4, heads=1, window=5).definition

        def __init__(self) -> None:
            super().__init__()
            self.part = ssm.Module(self.definition)

        def forward(self, u: Any) -> Any:
            return self.part(u, reset=u[..., 0] > 1.0)

    model = WithReset().eval()
    _check(model, _exported(model))


@needs_kernels
@pytest.mark.parametrize("name", ["S4D", "S5", "LocalAttention"])
def test_the_state_for_any_length(name: str) -> None:
    layers = {
        "S4D": ssm.S4D(4, d_state=4),
        "S5": ssm.S5(4, d_state=4),
        "LocalAttention": ssm.LocalAttention(4, heads=1, window=5),
    }
    model = _WithState(layers[name]).eval()
    run = _exported(model)
    for length in OTHERS:
        u = _input(model, length)
        with torch.no_grad():
            for found, expected in zip(run(u), model(u), strict=True):
                assert_close(f"L = {length}", found, expected, "float32")


class _WithState(torch.nn.Module):  # type: ignore[misc,name-defined]
    """A module that returns its output and the arrays of its state."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer, self.definition = layer, layer.definition

    def forward(self, u: Any) -> tuple[Any, ...]:
        y, state = self.layer(u, return_state=True)
        return (y, *state.values())


@needs_kernels
def test_for_any_batch_and_length() -> None:
    model = SCANNING["Mamba"]().eval()
    run = _exported(model, batch=torch.export.Dim("batch", min=2, max=64))
    _check(model, run, batch=3)


@pytest.mark.parametrize("layer", [lambda: ssm.S4(4, d_state=4), lambda: ssm.LSSL(4, d_state=4)])
def test_dense_transitions_want_one_length(layer: Any) -> None:
    with pytest.raises(SSMError, match=r"length of u is left open .* one program for each length"):
        _exported(layer())

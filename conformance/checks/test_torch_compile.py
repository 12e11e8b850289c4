"""torch.compile of whole networks: one graph, and the outputs and gradients of eager mode."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from checks.small_layers import assert_close

torch = pytest.importorskip("torch", reason="torch is not installed")
ssm: Any = pytest.importorskip("ssmcore_torch", reason="torch is not installed")


def _classifier(part: Any) -> Any:
    return ssm.SequenceClassifier(4, 3, part, n_layers=1)


# H3 has S4D inside, which alone is compiled with the other layers, in test_torch_modules.py.
CASES: dict[str, Any] = {
    "Mamba": lambda: ssm.LanguageModel(7, ssm.Residual(ssm.Mamba(4)), n_layers=1),
    "Griffin": lambda: ssm.LanguageModel(
        7,
        (ssm.Residual(ssm.Hawk(4)), ssm.Residual(ssm.LocalAttention(4, heads=1, window=4))),
        n_layers=2,
    ),
    "S5": lambda: _classifier(ssm.SSMBlock(ssm.S5(4, d_state=4))),
    "H3": lambda: _classifier(ssm.Residual(ssm.H3(4, d_state=4, taps=4))),
}


# array-api-compat caches the class checks that torch.compile traces through, and torch says so.
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_one_graph_gives_what_eager_mode_gives(name: str) -> None:
    torch._dynamo.reset()
    model = CASES[name]()
    twin = copy.deepcopy(model)
    tokens = model.definition.tokens
    generator = torch.Generator().manual_seed(0)
    shape = (2, 9) if tokens else (2, 9, 4)
    u = torch.randint(7, shape, generator=generator) if tokens else torch.randn(shape)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    y, expected = compiled(u), model(u)
    for found in (y, expected):
        found.square().sum().backward()
    assert_close(name, y.detach(), expected.detach(), "float32")
    for (key, x), y in zip(twin.named_parameters(), model.parameters(), strict=True):
        assert_close(f"gradient of {key}", x.grad, y.grad, "float32")

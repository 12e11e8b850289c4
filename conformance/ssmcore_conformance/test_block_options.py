"""BatchNorm in training, weights in half precision, gradients, groups, and what is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore import arrays, backend, blocks, networks
from ssmcore.errors import SSMError
from ssmcore_conformance.plugin import selected
from ssmcore_conformance.running import call, host
from ssmcore_conformance.scaffolds import MODULES, L, scenario
from ssmcore_conformance.tolerances import EQUIVALENCE, GRADIENTS

TINY: Any = networks.griffin(5, 4, 3, heads=1, window=3, d_hidden=4)


def test_batch_norm_training(ssm_backend: Any) -> None:
    """Statistics of the steps that are not padding; the new running ones beside the output."""
    norm = blocks.BatchNorm(2, momentum=0.25)
    rng = np.random.default_rng(0)
    u, lengths = rng.standard_normal((3, 5, 2)), np.asarray([5, 0, 2])
    u[np.arange(5) >= lengths[:, None]] = np.nan
    params = {k: x + 0.5 for k, x in norm.init(0, dtype="float64").items()}
    run = partial(norm, training=True)
    y, new = call(ssm_backend, lambda p, x, n: run(p, x, lengths=n), params, u, lengths)
    seen = np.concatenate([u[0], u[2, :2]])
    mean, var = seen.mean(axis=0), seen.var(axis=0)
    exact = (u[0] - mean) / np.sqrt(var + norm.eps) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y[0], exact, atol=1e-12)
    np.testing.assert_allclose(new["mean"], 0.75 * params["mean"] + 0.25 * mean, atol=1e-12)
    unbiased = seen.var(axis=0, ddof=1)
    np.testing.assert_allclose(new["var"], 0.75 * params["var"] + 0.25 * unbiased, atol=1e-12)
    merged = norm.with_statistics(params, new)
    assert merged["mean"] is new["mean"]
    assert merged["scale"] is params["scale"]
    with pytest.raises(SSMError, match="statistics of another module"):
        norm.with_statistics(params, {"mean": new["mean"]})


def test_statistics_of_a_network() -> None:
    """Nested as the parameters, beside a state; an empty batch changes nothing."""
    s = scenario("classifier")
    _, state, new = s.module(s.params, s.u, return_state=True, training=True, key=1)
    assert set(state) == {"layers", "pool"}
    assert set(new) == {"layers", "norm"}
    names = {name for group in s.module.param_groups() if group.lr == 0.0 for name in group.names}
    assert names == {name for name, _ in arrays.leaves(new)}
    _, same = s.module(s.params, s.u, lengths=0 * s.lengths, training=True)
    before = dict(arrays.leaves(s.params))
    for name, x in arrays.leaves(same):
        np.testing.assert_array_equal(x, before[name])


@pytest.mark.parametrize("name", MODULES)
def test_parameter_groups_name_every_parameter_once(name: str) -> None:
    """Every parameter is in one group of an optimiser, and in no other."""
    module = MODULES[name]
    named = [n for group in module.param_groups() for n in group.names]
    assert sorted(named) == sorted(n for n, _ in arrays.leaves(module.shapes()))


@pytest.mark.parametrize("name", ["Mamba LM", "Griffin LM", "classifier"])
def test_weights_in_half_precision(name: str) -> None:
    """float16 weights of products beside float32: nearly the same outputs, states in float32."""
    s = scenario(name, "float32")
    loose = {n for g in s.module.param_groups() if not g.keep_float32 for n in g.names}
    allowed = s.module._loose()
    params = {n: x.astype("float16") if n in allowed else x for n, x in arrays.leaves(s.params)}
    assert allowed <= loose
    assert allowed
    y, state = s.module(params, s.u, return_state=True)
    full = s.module(s.params, s.u)
    assert y.dtype == full.dtype == np.float32
    assert {str(x.dtype) for _, x in arrays.leaves(state)} == {"float32"}
    assert {str(x.dtype) for _, x in arrays.leaves(s.module.initial_state(params))} == {"float32"}
    peak = np.abs(full).max()
    assert 0 < np.abs(y - full).max() < 0.05 * peak
    one, _ = s.module.step(params, s.u[:, 0] if s.module.tokens else s.u[:, 0, :])
    assert one.dtype == np.float32


def test_gradients(request: pytest.FixtureRequest) -> None:
    """torch = JAX = central differences, through every kind of block, with resets and padding."""
    stack = (
        blocks.Residual(blocks.Mamba(4, d_state=2), norm="layer"),
        blocks.Residual(blocks.Hawk(4), blocks.GatedMLP(4, 3)),
        blocks.Residual(blocks.LocalAttention(4, heads=1, window=3)),
        blocks.SSMBlock(ssm.LRU(4, d_state=2), "batch", dropout=0.2),
    )
    model = networks.LanguageModel(5, stack, 4, soft_cap=3.0)
    rng = np.random.default_rng(2)
    params = model.init(0, dtype="float64")
    tokens, weights = rng.integers(0, 5, (2, 7)), rng.standard_normal((2, 7, 5))
    reset, lengths = rng.random((2, 7)) < 0.3, np.asarray([7, 4])

    def loss(library: Any) -> Any:
        put = library.from_numpy
        masks = {"reset": put(reset), "lengths": put(lengths)}

        def f(p: Any) -> Any:
            y, _ = model(p, put(tokens), **masks, training=True, key=3)
            return library.xp.sum(put(weights) * y)

        return f

    direction = arrays.tree_map(lambda x: rng.standard_normal(x.shape), params)
    found = {}
    for name in selected(request.config):
        library = backend.load(name)
        if library.gradients:
            tree = arrays.tree_map(library.from_numpy, params)
            _, found[name] = library.value_and_grad(loss(library), tree)
            found[name] = dict(arrays.leaves(host(found[name])))
    if not found:
        pytest.skip("no selected backend differentiates")
    f, step = loss(backend.load("numpy")), 1e-4

    def at(h: float) -> float:
        shifted = zip(arrays.leaves(params), arrays.leaves(direction), strict=True)
        return float(f(arrays.nest((n, x + h * d) for (n, x), (_, d) in shifted)))

    fine, coarse = ((at(h) - at(-h)) / (2 * h) for h in (step, 2 * step))
    for grads in found.values():
        slope = sum(float(np.sum(grads[n] * d)) for n, d in arrays.leaves(direction))
        assert abs(slope - fine) <= 2 * abs(coarse - fine) / 3 + 1e-8 * abs(fine)
    if len(found) == 2:
        one, two = found.values()
        for key, x in one.items():
            peak = np.abs(x).max(initial=0.0)
            np.testing.assert_allclose(two[key], x, rtol=0, atol=GRADIENTS * (peak or 1.0))


def test_inputs_may_be_read_only() -> None:
    """Nothing is written into parameters, inputs, states or masks."""
    s = scenario("Griffin LM")
    frozen = arrays.tree_map(np.array, s.params)
    for _, x in arrays.leaves(frozen):
        x.setflags(write=False)
    u = s.u.copy()
    u.setflags(write=False)
    _, state = s.module(frozen, u, return_state=True)
    for _, x in arrays.leaves(state):
        x.setflags(write=False)
    s.module(frozen, u, state, lengths=s.lengths, reset=s.reset, return_state=True)
    s.module.step(frozen, u[:, 0], state)


def test_late_positions_are_exact() -> None:
    """10^9 steps into a document attention is what it is 10 steps in, in float32 too."""
    attention = blocks.LocalAttention(8, heads=1, window=4, rotary=1.0)
    params, u = attention.init(0), np.random.default_rng(0).standard_normal((9, 8))
    u = u.astype("float32")
    _, state = attention(params, u[:4], return_state=True)
    whole = attention(params, u)
    far = 2.0**20
    late = {**state, "position": state["position"] + np.asarray([far, 0], "float32")}
    # the keys of the state were turned for early positions: only steps that do not see them count
    y, after = attention(params, u, late, return_state=True)
    np.testing.assert_allclose(y[3:], whole[3:], rtol=0, atol=EQUIVALENCE["float32"])
    assert after["position"][0] == far + (4 + 9) // 1024


MODEL: Any = networks.LanguageModel
BAD: list[tuple[Any, str]] = [
    (lambda: blocks.Linear(0), "d_model is 0"),
    (lambda: blocks.Linear(2, initialization="he"), "initialization is 'he'"),
    (lambda: blocks.RMSNorm(2, eps=0.0), "eps is 0.0"),
    (lambda: blocks.BatchNorm(2, momentum=2.0), "momentum is 2.0"),
    (lambda: blocks.Dropout(2, 1.0), r"rate is 1.0; expected a number in \[0, 1\)"),
    (lambda: blocks.ShortConvolution(2, activation="swish"), "activation is 'swish'"),
    (lambda: blocks.GLU(2, 3, "half_glu1"), "d_out is 3"),
    (lambda: blocks.Mamba(4, expand=0), "expand is 0"),
    (lambda: blocks.H3(4, head_dim=3), "head_dim is 3; expected a divisor of 4"),
    (lambda: blocks.Hawk(4, heads=3), "heads is 3; expected a divisor"),
    (lambda: blocks.LocalAttention(8, 3, 4), "heads is 3; expected a divisor"),
    (lambda: blocks.LocalAttention(6, 2, 4, rotary=1.0), "rotary is 1.0"),
    (lambda: blocks.LocalAttention(8, 4, 4, kv_heads=3), "kv_heads is 3"),
    (lambda: blocks.SSMBlock(blocks.Embedding(3, 4)), "expected a layer"),
    (lambda: blocks.SSMBlock(ssm.S4D(4, channels=2), glu="none"), "gives 8 channels"),
    (lambda: blocks.SSMBlock(ssm.S4D(4), norm="lyaer"), "norm is 'lyaer'.*did you mean 'layer'"),
    (lambda: blocks.Residual(ssm.S4D(4), blocks.GatedMLP(3, 4)), "mlp takes 3 channels"),
    (lambda: blocks.Stack(()), "blocks is ()"),
    (lambda: blocks.Stack((blocks.Linear(2), blocks.Linear(3))), "block 0 gives 2 channels"),
    (lambda: MODEL(5, ssm.S4D, 1), "block is"),
    (lambda: networks.LanguageModel(5, ssm.S4D(4), 0), "n_layers is 0"),
    (lambda: networks.griffin(5, 4, 3, heads=1, pattern=("rnn",)), "part of the pattern is 'rnn'"),
    (
        lambda: networks.SequenceClassifier(2, 3, ssm.S4D(4), pooling="none", documents=2),
        "pooling is 'none' with two documents",
    ),
]


@pytest.mark.parametrize("at", range(len(BAD)))
def test_hyper_parameters_that_cannot_be(at: int) -> None:
    """Hyper-parameters that make no sense are refused by name."""
    make, message = BAD[at]
    with pytest.raises(SSMError, match=message):
        make()


def test_calls_that_cannot_be() -> None:
    """One error of one kind, before any work."""
    params, tokens = TINY.init(0), np.zeros((2, 3), int)
    state = TINY.initial_state(params, (2,))
    flat = dict(arrays.leaves(params))
    name = "layers.2.mixer.q_proj.weight"
    half = {**flat, "norm.scale": flat["norm.scale"].astype("float16")}
    cases: list[tuple[Any, str]] = [
        (lambda: TINY(params, tokens + 5), "tokens go from 5 to 5; expected 0 to 4"),
        (lambda: TINY(params, tokens * 1.0), "tokens have dtype float64; expected integers"),
        (lambda: TINY({**flat, name: flat[name][:1]}, tokens), f"{name} has shape"),
        (lambda: TINY({k: x for k, x in flat.items() if k != name}, tokens), f"missing .*{name}"),
        (lambda: TINY(half, tokens), r"norm\.scale has dtype float16"),
        (lambda: TINY(params, tokens, {}), "state of another layer"),
        (lambda: TINY(params, tokens[:1], state), "state.*has shape"),
        (lambda: TINY(params, tokens, mode="convolution"), "mode 'convolution'"),
        (lambda: TINY(params, tokens, padding="left"), "padding is 'left' without lengths"),
        (lambda: TINY(params, tokens, padding="both"), "padding is 'both'"),
        (lambda: TINY(params, tokens, logits="first"), "logits is 'first'"),
        (lambda: TINY(params, tokens, lengths=np.asarray([1, 4])), "lengths go from 1 to 4"),
        (lambda: TINY(params, tokens, reset=np.zeros((2, 2), bool)), "reset has shape"),
        (lambda: TINY(params, tokens, training=1), "training is 1"),
        (lambda: TINY(params, tokens, resets=None), "did you mean 'reset'"),
    ]
    for run, message in cases:
        with pytest.raises(SSMError, match=message):
            run()
    s = scenario("classifier of pairs")
    with pytest.raises(SSMError, match=r"expected \(..., 2, L, d_input\)"):
        s.module(s.params, s.u[:, :1])
    with pytest.raises(SSMError, match="reset with pooling"):
        s.module(s.params, s.u, reset=np.zeros(s.u.shape[:-1], bool))
    assert L > 1

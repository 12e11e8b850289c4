"""The language models of transformers, their weights in ssmcore's blocks: the same logits."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from checks.golden_networks import MODELS, answers, weights

from ssmcore import arrays, backend
from ssmcore.blocks import LocalAttention, Residual

BARS = {"float64": 1e-11, "float32": 2e-5}
"""The project's bars for agreement with the originals: a share of the peak."""
LIBRARIES = ("numpy", "torch", "jax")


def _library(name: str) -> backend.Backend:
    if name not in backend.available():
        pytest.skip(f"{name} is not installed")
    library = backend.load(name)
    library.enable_float64()
    return library


def _share(got: Any, expected: np.ndarray[Any, Any]) -> float:
    difference = np.abs(backend.to_numpy(got).astype("float64") - expected)
    return float(np.max(difference) / np.max(np.abs(expected)))


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", MODELS)
def test_logits(name: str, library: str, dtype: str) -> None:
    """All tokens at once; the window of the attention is shorter than the text."""
    if library == "jax" and dtype == "float32":
        pytest.skip("compiled in one precision only: float64")
    used, model = _library(library), MODELS[name]
    params = arrays.nest((k, used.from_numpy(x)) for k, x in weights(name, dtype).items())
    tokens = used.from_numpy(answers(name)["input_ids"])
    logits = used.compile(lambda p, t: model(p, t))(params, tokens)
    share = _share(logits, answers(name)[f"f{dtype[-2:]}/logits"])
    print(f"{name} on {library}, {dtype}: {share:.1e} of the peak")
    assert 0 < share <= BARS[dtype]


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("name", MODELS)
def test_token_by_token(name: str, dtype: str) -> None:
    """Chunks of 7, then single tokens: the logits of all at once."""
    model, params = MODELS[name], arrays.nest(weights(name, dtype).items())
    tokens, expected = answers(name)["input_ids"], answers(name)[f"f{dtype[-2:]}/logits"]
    y, state = model(params, tokens[:, :7], return_state=True)
    outputs = [y]
    for t in range(7, tokens.shape[1]):
        y, state = model.step(params, tokens[:, t], state)
        outputs.append(y[:, None])
    assert _share(np.concatenate(outputs, axis=1), expected) <= BARS[dtype]


@pytest.mark.parametrize("name", MODELS)
def test_greedy_text(name: str) -> None:
    """The continuation of the prompts, token by token."""
    model, params = MODELS[name], arrays.nest(weights(name, "float32").items())
    prompt, expected = answers(name)["generate_prompt"], answers(name)["generate"]
    logits, state = model(params, prompt, logits="last", return_state=True)
    text = [prompt]
    while True:
        text.append(np.argmax(logits, axis=-1)[:, None])
        if sum(x.shape[1] for x in text) == expected.shape[1]:
            break
        logits, state = model.step(params, text[-1][:, 0], state)
    np.testing.assert_array_equal(np.concatenate(text, axis=1), expected)


@pytest.mark.parametrize("dtype", BARS)
def test_padding_on_the_left(dtype: str) -> None:
    """Mamba without biases is the one that transformers pads exactly."""
    name = "hf_mamba"
    io, mask = answers(name), answers(name)["attention_mask_left"] > 0
    params = weights(name, dtype)
    lengths = mask.sum(axis=1)
    y = MODELS[name](params, io["input_ids"], lengths=lengths, padding="left")
    expected = io[f"f{dtype[-2:]}/logits_left_padded"]
    assert 0 < lengths.min() < mask.shape[1]
    assert _share(y[mask], expected[mask]) <= BARS[dtype]


def test_another_window_is_noticed() -> None:
    """The bar tells the convention of the window: one step more is another model."""
    name = "hf_recurrentgemma"
    model, params = MODELS[name], weights(name, "float64")
    assert isinstance(model.block, tuple)
    *recurrent, local = model.block
    assert isinstance(local, Residual)
    assert isinstance(local.mixer, LocalAttention)
    wider = dataclasses.replace(local, mixer=dataclasses.replace(local.mixer, window=9))
    other = dataclasses.replace(model, block=(*recurrent, wider))
    share = _share(other(params, answers(name)["input_ids"]), answers(name)["f64/logits"])
    assert share > 1e-3

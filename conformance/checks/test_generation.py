"""Generation: the originals' greedy text, sampling by its definition, batches, resuming."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks.pretrained_cases import GRIFFIN, MAMBA, io

import ssmcore as ssm
from ssmcore import backend, blocks, checkpoints, networks
from ssmcore.generation import CHUNK, generate, load_state, save_state
from ssmcore.sampling import Sampling

load_pretrained: Any = checkpoints.load_pretrained

LIBRARIES = [n for n in ("numpy", "torch", "jax") if n in backend.available()]
ROWS = [[1], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [5, 6]]


def text(model: Any, params: Any, prompts: Any, **options: Any) -> np.ndarray:
    """Return all tokens, (rows, tokens)."""
    return np.stack(list(generate(model, params, prompts, **options)), axis=-1)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("folder", [MAMBA, GRIFFIN], ids=lambda f: f.name)
def test_greedy_text_of_transformers(folder: Path, library: str) -> None:
    given = io(folder)
    model, params = load_pretrained(folder, backend=library)
    found = text(model, params, given["generate_prompt"], max_tokens=20)
    np.testing.assert_array_equal(found, given["generate"][:, 8:])


@pytest.mark.parametrize("folder", [MAMBA, GRIFFIN], ids=lambda f: f.name)
def test_rows_of_any_lengths_are_as_if_alone(folder: Path) -> None:
    """Window 8 and 12 tokens of prompt: also longer than the window."""
    model, params = load_pretrained(folder)
    alone = [list(generate(model, params, row, max_tokens=6)) for row in ROWS]
    np.testing.assert_array_equal(text(model, params, ROWS, max_tokens=6), alone)


@pytest.mark.skipif(len(LIBRARIES) < 2, reason="needs two libraries")
def test_same_draws_on_every_library() -> None:
    options: dict[str, Any] = {"max_tokens": 8, "temperature": 1.5, "top_p": 0.9, "seed": 3}
    found = []
    for library in LIBRARIES[:2]:
        model, params = load_pretrained(MAMBA, backend=library)
        found.append(text(model, params, ROWS, **options))
    np.testing.assert_array_equal(found[0], found[1])
    assert len(np.unique(found[0])) > 6
    assert (text(model, params, ROWS, **options | {"seed": 4}) != found[0]).any()


@pytest.mark.parametrize("library", LIBRARIES[:2])
def test_going_on_from_a_saved_state(library: str, tmp_path: Path) -> None:
    """A text in two runs is the text of one; a later prompt is as if it had been there."""
    model, params = load_pretrained(GRIFFIN, backend=library)
    options: dict[str, Any] = {"temperature": 1.0, "seed": 9}
    whole = text(model, params, ROWS, max_tokens=9, **options)
    first = generate(model, params, ROWS, max_tokens=4, **options)
    head = np.stack(list(first), axis=-1)
    save_state(tmp_path / "state", model, first.state)
    state = load_state(tmp_path / "state", model, params)
    tail = text(model, params, None, state=state, max_tokens=5, **options)
    np.testing.assert_array_equal(np.concatenate([head, tail], axis=-1), whole)
    more = text(model, params, [[1, 2], [3], [4, 5]], state=state, max_tokens=3)
    joined = [r + list(h) + m for r, h, m in zip(ROWS, head, [[1, 2], [3], [4, 5]], strict=True)]
    np.testing.assert_array_equal(more, text(model, params, joined, max_tokens=3))
    with pytest.raises(ssm.SSMError, match="state of another model"):
        load_state(tmp_path / "state", load_pretrained(MAMBA)[0], params)


def test_stop_tokens() -> None:
    model, params = load_pretrained(MAMBA)
    free = text(model, params, ROWS, max_tokens=12)
    stop = int(free[0, 2])
    run = generate(model, params, ROWS, max_tokens=12, stop=[stop])
    found = np.stack(list(run), axis=-1)
    for row, full in zip(found, free, strict=True):
        length = list(full).index(stop) + 1 if stop in full else 12
        np.testing.assert_array_equal(row[:length], full[:length])
        assert (row[length:] == -1).all()
    assert (found[0] == -1).any() and len(set(found[1])) > 2  # noqa: PT018
    assert list(generate(model, params, ROWS[0], stop=range(64)))[1:] == []
    ended = run.state["drawn"]
    assert list(ended) == [int((row >= 0).sum()) for row in found]


def test_prompt_in_chunks(monkeypatch: Any) -> None:
    """As one pass, also where rows end in different chunks."""
    model, params = load_pretrained(GRIFFIN, dtype="float64")
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 64, n).tolist() for n in (1, 20, 7, 10)]
    whole = generate(model, params, rows, max_tokens=4)
    monkeypatch.setattr("ssmcore.generation.CHUNK", 5)
    cut = generate(model, params, rows, max_tokens=4)
    scale = np.abs(whole.state["logits"]).max()
    assert np.abs(cut.state["logits"] - whole.state["logits"]).max() <= 1e-11 * scale
    assert [list(x) for x in whole] == [list(x) for x in cut]


def test_memory_does_not_grow() -> None:
    """Of five runs of 200 tokens one leaves less than a number a token: what is kept, all would."""
    model = networks.mamba(8, 4, 1)
    run = generate(model, model.init(0), list(range(8)) * CHUNK)
    held = []
    tracemalloc.start()
    for _ in range(6):
        for _ in range(200):
            next(run)
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert min(after - before for before, after in itertools.pairwise(held)) < 200 * 8


def test_model_without_a_state(tmp_path: Path) -> None:
    model = networks.LanguageModel(5, blocks.Linear(3), 1)
    params = model.init(0)
    run = generate(model, params, [1, 2], max_tokens=3)
    head = list(run)
    save_state(tmp_path / "s", model, run.state)
    state = load_state(tmp_path / "s", model, params)
    tail = list(generate(model, params, state=state, max_tokens=2))
    assert head + [int(x[0]) for x in tail] == list(generate(model, params, [1, 2], max_tokens=5))


# ------------------------------------------------------------------------------------- sampling


def test_draws_have_the_probabilities() -> None:
    """u over a grid of 1000: each token's share is its softmax to within one step a boundary."""
    logits = np.random.default_rng(1).standard_normal(7)
    expected = np.exp(logits / 0.7) / np.exp(logits / 0.7).sum()
    grid = (np.arange(1000) + 0.5) / 1000
    drawn = [Sampling(0.7).draw(logits, u) for u in grid]
    share = np.bincount(drawn, minlength=7) / 1000
    assert np.abs(share - expected).max() <= 1e-3


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 1}, [1]),
        ({"top_k": 3}, [1, 2, 3]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({"top_p": 0.5}, [1]),
        ({"top_p": 0.51}, [1, 3]),
        ({"top_p": 0.81}, [1, 2, 3]),
        ({"top_p": 1.0}, [0, 1, 2, 3]),
        ({"min_p": 0.5}, [1, 3]),
        ({"min_p": 0.2}, [1, 2, 3]),
        ({"top_k": 3, "top_p": 0.8}, [1, 3]),
        ({"top_k": 3, "top_p": 0.9}, [1, 2, 3]),
    ],
)
def test_what_is_kept(options: dict[str, Any], kept: list[int]) -> None:
    """p = 0.05, 0.5, 0.15, 0.3; after top_k=3 the shares are of 0.95."""
    p = np.asarray([0.05, 0.5, 0.15, 0.3])
    found = Sampling(1.0, **options).probabilities(np.log(p) + 1e-12 * np.asarray([0, 1, 0, 0]))
    assert list(np.flatnonzero(found)) == kept
    np.testing.assert_allclose(found[kept], p[kept] / p[kept].sum(), rtol=1e-11)


def test_samplers_of_transformers() -> None:
    """Their processors in their order, on random logits."""
    transformers = pytest.importorskip("transformers")
    import torch

    logits = np.random.default_rng(2).standard_normal((20, 40)) * 3
    chain = [
        transformers.TemperatureLogitsWarper(0.8),
        transformers.TopKLogitsWarper(12),
        transformers.TopPLogitsWarper(0.85),
        transformers.MinPLogitsWarper(0.08),
    ]
    theirs = torch.tensor(logits)
    for warper in chain:
        theirs = warper(None, theirs)
    expected = torch.softmax(theirs, -1).numpy()
    how = Sampling(0.8, top_k=12, top_p=0.85, min_p=0.08)
    found = np.stack([how.probabilities(row) for row in logits])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_greedy_takes_the_first_of_equals() -> None:
    assert Sampling().draw(np.asarray([0.0, 2.0, 2.0]), 0.9) == 1
    assert Sampling(1.0).draw(np.asarray([0.0, -np.inf]), np.nextafter(1.0, 0.0)) == 0


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("prompts", "options", "said"),
    [
        ([], {}, "no prompt"),
        ([[1], []], {}, "prompt 1 is empty"),
        (np.zeros((0, 3), int), {}, "no prompt"),
        ("text", {}, "prompts are 'text'"),
        (3, {}, "prompts are 3"),
        ([1, 64], {}, "prompt 0 has 64; expected tokens from 0 to 63"),
        ([1, 2.5], {}, "prompt 0 has 2.5"),
        ([[1], 2], {}, "prompt 1 is 2"),
        (None, {}, "neither prompts nor state"),
        ([1], {"temperature": -1.0}, "temperature is -1.0"),
        ([1], {"top_p": 0.0}, "top_p is 0.0; expected above 0"),
        ([1], {"top_k": 0}, "top_k"),
        ([1], {"max_tokens": 1.5}, "max_tokens is 1.5"),
        ([1], {"seed": -1}, "seed is -1"),
        ([1], {"seed": 2**128}, r"seed is 3402.*456; .*below 2\*\*128"),
        ([1], {"stop": [99]}, "stop has 99"),
        ([1], {"stop": 3}, "stop is 3; expected a sequence of tokens"),
        ([1], {"stop": None}, "stop is None; expected a sequence of tokens"),
        (np.asarray(3), {}, "prompts are array.3.; expected tokens, or sequences"),
        ([1], {"state": {"logits": 3}}, "state is not that of"),
    ],
)
def test_refused(prompts: Any, options: dict[str, Any], said: str) -> None:
    model = networks.mamba(64, 4, 1)
    with pytest.raises(ssm.SSMError, match=said):
        generate(model, model.init(0), prompts, **options)


def test_wrong_number_of_rows() -> None:
    model = networks.mamba(64, 4, 1)
    state = generate(model, model.init(0), [[1], [2]]).state
    with pytest.raises(ssm.SSMError, match="1 prompts for a state of 2 rows"):
        generate(model, model.init(0), [3], state=state)
    with pytest.raises(ssm.SSMError, match="model is LRU"):
        generate(ssm.LRU(2), {}, [1])  # type: ignore[arg-type]


def test_a_state_that_is_bent() -> None:
    model = networks.mamba(64, 4, 1)
    params = model.init(0)
    state = generate(model, params, [[1], [2]]).state
    for drawn in ([0, 0], np.zeros(2), np.asarray([-1, 0]), np.zeros(3, int)):
        with pytest.raises(ssm.SSMError, match="state is not that of"):
            generate(model, params, state=state | {"drawn": drawn})


def test_logits_that_are_no_numbers() -> None:
    model = networks.mamba(64, 4, 1)
    params = model.init(0)
    params["norm"]["scale"] = params["norm"]["scale"] * np.nan
    with pytest.raises(ssm.SSMError, match="logits of row 0 are not numbers at token 0"):
        next(generate(model, params, [1]))

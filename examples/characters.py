"""A language model of characters, trained in torch or in JAX on the help texts of Python itself.

``pydoc_data.topics``, what ``help("for")`` shows, is a part of every Python: some 400 000
characters. The last tenth is held out; on it the model is compared with n-grams, in bits a
character.

    python examples/characters.py --model mamba --backend torch
    python examples/characters.py --model griffin --backend jax
    python examples/characters.py --model mamba --resume             # after an interruption
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from pydoc_data.topics import topics
from typing import Annotated, Any

import numpy as np
import typer
from training import (
    Array,
    Backend,
    Plan,
    Record,
    Trainer,
    command,
    console,
    cross_entropy,
    fit,
    make_trainer,
    plot,
)

from ssmcore import SSMError, networks

CHUNK = 256  # steps that validation takes at a time, carrying the state
STREAMS = 16  # into which it cuts the text


class Model(StrEnum):
    """The language models."""

    MAMBA = "mamba"
    GRIFFIN = "griffin"


def language_model(
    model: str, vocab: int, width: int, layers: int, heads: int
) -> networks.LanguageModel:
    """Return the network, the same for every library."""
    if model == Model.MAMBA:
        return networks.mamba(vocab, width, layers)
    return networks.griffin(vocab, width, layers, heads=heads, window=64)


def load_text() -> str:
    """Return the help texts one after the other, but those that are part of another."""
    names = sorted(topics)
    body = {name: topics[name].strip() for name in names}
    inside = {a for a in names for b in names if a != b and body[a][50:] in body[b]}
    return "\n\n\n".join(body[name] for name in names if name not in inside)


def encode(text: str, letters: str) -> Array:
    """Return the numbers of the characters of ``text`` in ``letters``."""
    number = {letter: i for i, letter in enumerate(letters)}
    return np.asarray([number[letter] for letter in text], dtype="int64")


def batches(tokens: Array, size: int, length: int, key: list[int], steps: int) -> Iterator[Any]:
    """Yield ``steps`` batches of windows anywhere in ``tokens``, and what follows each step."""
    rng = np.random.default_rng(key)
    for _ in range(steps):
        first = rng.integers(0, len(tokens) - length, size)
        window = tokens[first[:, None] + np.arange(length + 1)]
        yield window[:, :-1], window[:, 1:]


def bits(trainer: Trainer, tokens: Array) -> float:
    """Return bits a character over ``tokens``, read in some streams, the state carried along."""
    length = (len(tokens) - 1) // STREAMS // CHUNK * CHUNK
    if not length:
        msg = f"{len(tokens)} characters held out; expected more than {STREAMS * CHUNK}"
        raise SSMError(msg)
    first = length * np.arange(STREAMS)[:, None]
    state, total = None, 0.0
    for start in range(0, length, CHUNK):
        window = tokens[first + start + np.arange(CHUNK + 1)]
        logits, state = trainer.stream(window[:, :-1], state)
        total += cross_entropy(logits, window[:, 1:]) * CHUNK / length
    return total / math.log(2)


def ngram_bits(train: str, held: str, letters: int, longest: int = 5) -> list[float]:
    """Return bits a character over ``held`` of n-grams for n = 1 .. ``longest``.

    Witten and Bell's interpolation: p_n(c | h) = (N(h c) + T(h) p_{n-1}(c | h')) / (N(h) + T(h)),
    N how often something occurs in ``train``, T(h) how many different characters follow h there, h'
    what is left of h without its first character, p_0 = 1 / ``letters``.
    """
    p = np.full(len(held), 1.0 / letters)
    answers = []
    for n in range(1, longest + 1):
        grams = Counter(train[i : i + n] for i in range(len(train) - n + 1))
        seen, kinds = Counter[str](), Counter[str]()
        for gram, count in grams.items():
            seen[gram[:-1]] += count
            kinds[gram[:-1]] += 1
        for i in range(n - 1, len(held)):
            gram = held[i - n + 1 : i + 1]
            h = gram[:-1]
            if h in kinds:
                p[i] = (grams[gram] + kinds[h] * p[i]) / (seen[h] + kinds[h])
        answers.append(float(-np.log2(p).mean()))
    return answers


def sample(
    definition: networks.LanguageModel,
    params: Any,
    letters: str,
    prompt: str,
    *,
    length: int,
    temperature: float,
    seed: int,
) -> str:
    """Return a text that goes on from ``prompt``; the network runs in NumPy, step by step."""
    rng = np.random.default_rng(seed)
    tokens = list(encode(prompt, letters))
    logits, state = definition(params, np.asarray(tokens), logits="last", return_state=True)
    for _ in range(length):
        weights = np.exp((logits - logits.max()).astype("float64") / temperature)
        tokens.append(rng.choice(len(letters), p=weights / weights.sum()))
        logits, state = definition.step(params, np.asarray(tokens[-1]), state)
    return "".join(letters[token] for token in tokens)


def main(
    model: Annotated[Model, typer.Option(help="The network.")] = Model.MAMBA,
    backend: Annotated[Backend, typer.Option(help="The library that trains.")] = Backend.TORCH,
    rounds: Annotated[int, typer.Option(min=1, help="Validations.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Of a round.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of parameters, windows and samples.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; runs/characters-MODEL-BACKEND by default."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    width: Annotated[int, typer.Option(min=1, help="Channels between the blocks.")] = 96,
    layers: Annotated[int, typer.Option(min=1, help="Number of blocks.")] = 3,
    heads: Annotated[int, typer.Option(min=1, help="Of Griffin.")] = 4,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 4e-3,
    weight_decay: Annotated[float, typer.Option(min=0.0)] = 0.05,
    batch: Annotated[int, typer.Option(min=1)] = 16,
    length: Annotated[int, typer.Option(min=1, max=10_000, help="Of a window.")] = 128,
    prompt: Annotated[str, typer.Option(help="What the samples go on from.")] = "The ",
    temperature: Annotated[float, typer.Option(min=0.01, help="Of the samples.")] = 0.7,
) -> None:
    """Train a model of characters, compare it with n-grams, let it write."""
    began = time.perf_counter()
    text = load_text()
    letters = "".join(sorted(set(text)))
    if not prompt:
        msg = "--prompt is empty; expected some characters to go on from"
        raise SSMError(msg)
    unknown = sorted(set(prompt) - set(letters))
    if unknown:
        msg = f"--prompt has {unknown!r}; expected some of the characters {letters!r}"
        raise SSMError(msg)
    held = len(text) // 10
    train, test = encode(text[:-held], letters), encode(text[-held:], letters)
    definition = language_model(model, len(letters), width, layers, heads)
    trainer = make_trainer(backend, definition, lr=lr, weight_decay=weight_decay, seed=seed)
    out = out or Path("runs") / f"characters-{model}-{backend}"

    def validate() -> Record:
        per_character = bits(trainer, test)
        return {"loss": per_character * math.log(2), "bits": per_character}

    settings = {"model": str(model), "width": width, "layers": layers, "heads": heads, "seed": seed}
    settings |= {"rounds": rounds, "steps": steps, "batch": batch, "length": length}
    plan = Plan(
        settings=settings | {"lr": lr, "weight_decay": weight_decay, "letters": letters},
        rounds=rounds,
        steps=steps,
        batches=lambda number: batches(train, batch, length, [seed, number], steps),
        validate=validate,
        patience=5,
    )
    history = fit(trainer, plan, out, resume)
    plot(history, out / "curve.png", f"{model} on {backend}: characters", "loss (nats)")
    seconds = time.perf_counter() - began
    for n, baseline in enumerate(ngram_bits(text[:-held], text[-held:], len(letters)), 1):
        console.print(f"{n}-grams: {baseline:.3f} bits a character")
    console.print(f"{model} on {backend}: {bits(trainer, test):.3f}, after {seconds:.0f} s")
    params = trainer.tree()["params"]
    for number in range(2):
        console.rule(f"sample {number + 1}")
        options: dict[str, Any] = {"length": 300, "temperature": temperature, "seed": seed + number}
        console.print(
            sample(definition, params, letters, prompt, **options), markup=False, soft_wrap=True
        )


if __name__ == "__main__":
    command(main)

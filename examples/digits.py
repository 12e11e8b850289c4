"""Read a digit pixel by pixel: six state space models, trained in torch or in JAX.

The 1797 digits of 8 x 8 pixels that come with scikit-learn, as sequences of 64 steps.

    python examples/digits.py --model s5 --backend torch
    python examples/digits.py --model rglru --backend jax
    python examples/digits.py --model s5 --backend torch --resume    # after an interruption
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from training import (
    Array,
    Backend,
    Plan,
    Record,
    best,
    command,
    console,
    cross_entropy,
    fit,
    make_trainer,
    plot,
)

import ssmcore as ssm
from ssmcore import SSMError
from ssmcore.blocks import GatedMLP, Hawk, Mamba, Residual, SSMBlock
from ssmcore.module import Module
from ssmcore.networks import SequenceClassifier

Data = tuple[Array, Array]


class Model(StrEnum):
    """The models; S6 and RG-LRU in the blocks of their papers, Mamba and Hawk."""

    S4 = "s4"
    S4D = "s4d"
    S5 = "s5"
    LRU = "lru"
    S6 = "s6"
    RGLRU = "rglru"


def classifier(model: str, width: int, layers: int, dropout: float) -> SequenceClassifier:
    """Return the network, the same for every library: blocks between a pixel and a digit."""

    def block(layer: Module) -> Module:
        return SSMBlock(layer, dropout=dropout)

    # memory of a few steps to the whole sequence
    dt: dict[str, Any] = {
        "dt_min": 0.01,
        "dt_max": 0.5,
    }
    blocks: dict[Model, Callable[[], Module]] = {
        Model.S4: lambda: block(ssm.S4(width, d_state=16, **dt)),
        Model.S4D: lambda: block(ssm.S4D(width, d_state=16, **dt)),
        Model.S5: lambda: block(ssm.S5(width, d_state=width, **dt)),
        Model.LRU: lambda: block(ssm.LRU(width, d_state=width, r_min=0.5, r_max=0.99)),
        Model.S6: lambda: Residual(Mamba(width), dropout=dropout),
        Model.RGLRU: lambda: Residual(Hawk(width), GatedMLP(width, 2 * width), dropout=dropout),
    }
    return SequenceClassifier(1, 10, blocks[Model(model)](), n_layers=layers)


def load_digits() -> dict[str, Data]:
    """Return "training" (1257), "validation" (180) and "test" (360): u (n, 64, 1), labels (n,)."""
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        msg = "the digits come with scikit-learn: pip install scikit-learn"
        raise SSMError(msg) from error
    pixels, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))  # the same split for every --seed
    u = (pixels[order, :, None] / 8 - 1).astype("float32")
    labels = labels[order].astype("int64")
    parts = {"test": slice(360), "validation": slice(360, 540), "training": slice(540, None)}
    return {name: (u[part], labels[part]) for name, part in parts.items()}


def batches(data: Data, size: int, seed: int, epoch: int) -> Iterator[Data]:
    """Yield whole batches of ``data`` in the order of an epoch."""
    u, labels = data
    order = np.random.default_rng([seed, epoch]).permutation(len(labels))
    for i in range(len(order) // size):
        chosen = order[i * size : (i + 1) * size]
        yield u[chosen], labels[chosen]


def main(
    model: Annotated[Model, typer.Option(help="The layer.")] = Model.S5,
    backend: Annotated[Backend, typer.Option(help="The library that trains.")] = Backend.TORCH,
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of parameters, order and dropout.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/digits-MODEL-BACKEND by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    width: Annotated[int, typer.Option(min=1, help="Channels between the blocks.")] = 32,
    layers: Annotated[int, typer.Option(min=1, help="Number of blocks.")] = 2,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-2,
    weight_decay: Annotated[float, typer.Option(min=0.0)] = 0.05,
    dropout: Annotated[float, typer.Option(min=0.0, max=0.9)] = 0.1,
    batch: Annotated[int, typer.Option(min=1, max=1257)] = 32,
    patience: Annotated[int, typer.Option(min=1, help="Epochs without a better one.")] = 10,
) -> None:
    """Train a classifier of digits, say how well it does on the test split, draw its curve."""
    began = time.perf_counter()
    data = load_digits()
    definition = classifier(model, width, layers, dropout)
    trainer = make_trainer(backend, definition, lr=lr, weight_decay=weight_decay, seed=seed)
    out = out or Path("runs") / f"digits-{model}-{backend}"

    def measure(part: str) -> Record:
        u, labels = data[part]
        logits = trainer.logits(u)
        right = float((logits.argmax(axis=-1) == labels).mean())
        return {"loss": cross_entropy(logits, labels), "accuracy": right}

    settings = {"model": str(model), "width": width, "layers": layers, "dropout": dropout}
    settings |= {"epochs": epochs, "batch": batch, "lr": lr, "weight_decay": weight_decay}
    plan = Plan(
        settings=settings | {"seed": seed},
        rounds=epochs,
        steps=len(data["training"][1]) // batch,
        batches=lambda epoch: batches(data["training"], batch, seed, epoch),
        validate=lambda: measure("validation"),
        patience=patience,
    )
    history = fit(trainer, plan, out, resume)
    plot(history, out / "curve.png", f"{model} on {backend}: sequential digits", "loss (nats)")
    accuracy = measure("test")["accuracy"]
    seconds = time.perf_counter() - began
    console.print(
        f"{model} on {backend}: test accuracy {accuracy:.2%} with the parameters of epoch "
        f"{best(history) + 1}; {seconds:.0f} s"
    )


if __name__ == "__main__":
    command(main)

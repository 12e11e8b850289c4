"""What the examples share, whatever library trains: schedule, loop, checkpoints, curve.

A trainer (train_torch.py, train_jax.py) holds a model and its optimiser; ``fit`` trains it in
rounds, an epoch or so many steps each. After a round it validates and writes two files:

- ``last.safetensors``: parameters, both moments of AdamW, the history and the settings of the run;
- ``best.safetensors``: the parameters of the round with the smallest validation loss.

Nothing else carries over from one round to the next, the order of the data and the randomness of
dropout being functions of the seed and of the step; so a run that is resumed ends as it would have
ended undisturbed, bit for bit.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ssmcore import SSMError, checkpoints
from ssmcore.module import Module

Array = np.ndarray
Record = dict[str, float]
"""What is known after a round: train_loss, seconds, and of validation the loss and what not."""

console = Console(highlight=False)


class Backend(StrEnum):
    """The libraries that train."""

    TORCH = "torch"
    JAX = "jax"


class Trainer(Protocol):
    """A model and its AdamW, in some library; arrays come and go as NumPy's."""

    def step(self, u: Array, labels: Array, factor: float, key: tuple[int, int]) -> float:
        """Take a step of ``factor`` times the learning rates; return the loss before it."""

    def logits(self, u: Array) -> Array:
        """Return the answers of the model to a batch."""

    def stream(self, u: Array, state: Any) -> tuple[Array, Any]:
        """Return the answers to the next chunk of sequences, and the state after it."""

    def tree(self) -> dict[str, Any]:
        """Return "params" and the moments "mean" and "square", each a nested dict."""

    def restore(self, tree: dict[str, Any], steps: int) -> None:
        """Take a ``tree`` back, of a trainer that had taken so many ``steps``."""


def make_trainer(
    backend: str, definition: Module, *, lr: float, weight_decay: float, seed: int
) -> Trainer:
    """Return a trainer with a newly drawn model."""
    if not (math.isfinite(lr) and lr > 0):
        msg = f"--lr is {lr}; expected a positive number such as 0.004"
        raise SSMError(msg)
    try:
        if backend == "torch":
            from train_torch import TorchTrainer

            return TorchTrainer(definition, lr, weight_decay, seed)
        from train_jax import JaxTrainer

        return JaxTrainer(definition, lr, weight_decay, seed)
    except ModuleNotFoundError as error:
        msg = f"--backend {backend} needs it installed: pip install 'ssmcore[{backend}]'"
        raise SSMError(msg) from error


@dataclass(frozen=True)
class Plan:
    """What ``fit`` does.

    Attributes
    ----------
    settings : all that the result depends on, as JSON; a run is resumed with the same only
    rounds, steps : rounds in all, steps of each
    batches : number of a round -> its (u, labels); the same whenever asked
    validate : () -> record with the "loss" that decides which round is best
    patience : rounds without a new best after which to stop
    """

    settings: dict[str, Any]
    rounds: int
    steps: int
    batches: Callable[[int], Iterable[tuple[Array, Array]]]
    validate: Callable[[], Record]
    patience: int


def fit(trainer: Trainer, plan: Plan, out: Path, resume: bool = False) -> list[Record]:
    """Train until the rounds are over or the loss no longer falls; leave the best parameters.

    Raises SSMError where ``out`` holds a run and ``resume`` is not set, where there is nothing to
    resume or other settings are there, and where the loss is no longer finite.
    """
    history = start(trainer, plan, out, resume)
    seed, total = int(plan.settings["seed"]), plan.rounds * plan.steps
    with progress(total, len(history) * plan.steps) as show:
        while len(history) < plan.rounds and not stalled(history, plan.patience):
            began = time.perf_counter()
            losses: list[float] = []
            for u, labels in plan.batches(len(history)):
                step = len(history) * plan.steps + len(losses)
                losses.append(trainer.step(u, labels, cosine(step, total), (seed, step)))
                if not math.isfinite(losses[-1]):
                    msg = f"the loss is {losses[-1]} at step {step}; try a smaller --lr"
                    raise SSMError(msg)
                show(losses[-1])
            record = {"train_loss": float(np.mean(losses)), **plan.validate()}
            history.append(record | {"seconds": time.perf_counter() - began})
            write(trainer, plan, history, out)
            figures = ", ".join(f"{name} {value:.4g}" for name, value in history[-1].items())
            console.print(f"round {len(history):3d} of {plan.rounds}: {figures}")
    _, tree = checkpoints.load(out / "best.safetensors")
    trainer.restore(tree | {"mean": tree["params"], "square": tree["params"]}, 0)
    return history


def cosine(step: int, total: int, warmup: float = 0.05) -> float:
    """Return the factor of the learning rate: up to 1 in a straight line, then down to 0."""
    rise = max(1.0, warmup * total)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (total - rise)))


def best(history: list[Record]) -> int:
    """Return the number of the round with the smallest validation loss, the first of equals."""
    return min(range(len(history)), key=lambda i: history[i]["loss"])


def stalled(history: list[Record], patience: int) -> bool:
    """Whether the last ``patience`` rounds brought nothing better."""
    return bool(history) and len(history) - 1 - best(history) >= patience


def start(trainer: Trainer, plan: Plan, out: Path, resume: bool) -> list[Record]:
    """Return the history so far, after restoring ``trainer``; [] for a run that begins."""
    file = out / "last.safetensors"
    if not resume:
        if file.exists():
            msg = f"{str(out)!r} holds a run; expected --resume, or another folder as --out"
            raise SSMError(msg)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"--out {str(out)!r} cannot be made ({error.strerror}); expected a folder"
            raise SSMError(msg) from None
        return []
    config, tree = checkpoints.load(file)
    then, now = config["settings"], plan.settings
    other = [f"{k}: {then.get(k)!r}, now {now.get(k)!r}" for k in now if then.get(k) != now[k]]
    if other:
        msg = (
            f"{str(file)!r} is of a run with other settings ({'; '.join(other)}); expected the same"
        )
        raise SSMError(msg)
    history: list[Record] = config["history"]
    trainer.restore(tree, len(history) * plan.steps)
    console.print(f"resumed after round {len(history)} from {file}")
    return history


def write(trainer: Trainer, plan: Plan, history: list[Record], out: Path) -> None:
    """Write the checkpoints, each wholly or not at all."""
    tree = trainer.tree()
    config = {"settings": plan.settings, "history": history}
    if best(history) == len(history) - 1:
        checkpoints.save(out / "best.safetensors", config, {"params": tree["params"]})
    checkpoints.save(out / "last.safetensors", config, tree)


@contextmanager
def progress(total: int, done: int) -> Iterator[Callable[[float], None]]:
    """Give a function that moves a bar one step on and shows the loss; no bar in a log file."""
    columns = (
        TextColumn("loss {task.fields[loss]:.3f}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, completed=done, loss=math.nan)
        yield lambda loss: bar.update(task, advance=1, loss=loss)


def cross_entropy(logits: Array, labels: Array) -> float:
    """Return the mean of -log softmax(logits)[label], in nats."""
    logits = logits.astype("float64")
    logits = logits - logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return float((np.log(np.exp(logits).sum(axis=-1)) - chosen).mean())


def plot(history: list[Record], file: Path, title: str, unit: str) -> None:
    """Draw the losses of a run; ``unit`` is that of the loss."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        console.print("no curve drawn: pip install 'ssmcore[plot]'")
        return
    rounds = range(1, len(history) + 1)
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(rounds, [record["train_loss"] for record in history], label="training")
    axes.plot(rounds, [record["loss"] for record in history], label="validation")
    axes.axvline(best(history) + 1, color="0.7", linestyle=":", label="best")
    axes.set(xlabel="round", ylabel=unit, title=title)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=150)
    console.print(f"curve: {file}")


def command(main: Callable[..., None]) -> None:
    """Run ``main`` as a command line: errors are one line and exit code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @functools.wraps(main)
    def clean(**options: Any) -> None:
        try:
            main(**options)
        except SSMError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("interrupted; go on with --resume", err=True)
            raise typer.Exit(130) from None

    app.command()(clean)
    app()

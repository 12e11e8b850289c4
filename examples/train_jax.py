"""A model and AdamW in JAX: the step of torch.optim.AdamW, written out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import ssmcore_jax as ssm

import ssmcore
from ssmcore.module import Module

Array = np.ndarray
MEAN, SQUARE, EPS = 0.9, 0.999, 1e-8


class JaxTrainer:
    """See ``training.Trainer``."""

    def __init__(self, definition: Module, lr: float, weight_decay: float, seed: int) -> None:
        """Draw the parameters; ``rates`` and ``decays`` are pytrees with a number for each."""
        self.model = ssm.Module(definition, seed=seed)
        self.mean = self.square = jax.tree.map(jnp.zeros_like, self.model)
        self.steps = 0
        groups, labels = self.model.param_groups(), self.model.labels()
        rate = {label: _rate(group, lr) for label, group in groups.items()}
        decay = {label: weight_decay * group.weight_decay for label, group in groups.items()}
        self.rates = jax.tree.map(lambda label: rate[label], labels)
        self.decays = jax.tree.map(lambda label: decay[label], labels)

    def step(self, u: Array, labels: Array, factor: float, key: tuple[int, int]) -> float:
        """Take one step with gradients clipped to norm 1."""
        self.steps += 1
        rates = jax.tree.map(lambda rate: factor * rate, self.rates)
        before = (self.model, self.mean, self.square)
        after, loss = _step(
            before, rates, self.decays, self.steps, u, labels, jnp.asarray(key, "uint32")
        )
        self.model, self.mean, self.square = after
        return float(loss)

    def logits(self, u: Array) -> Array:
        """Return the answers, without dropout."""
        return np.asarray(_logits(self.model, u))

    def stream(self, u: Array, state: Any) -> tuple[Array, Any]:
        """Return the answers and the state after them."""
        state = self.model.initial_state(u.shape[:1]) if state is None else state
        logits, state = _stream(self.model, u, state)
        return np.asarray(logits), state

    def tree(self) -> dict[str, Any]:
        """Return parameters and moments; a moment has the name of its parameter."""
        modules = {"params": self.model, "mean": self.mean, "square": self.square}
        return {name: ssmcore.move(x.params, backend="numpy") for name, x in modules.items()}

    def restore(self, tree: dict[str, Any], steps: int) -> None:
        """Take parameters and moments back."""
        self.model, self.mean, self.square = (
            jax.tree.unflatten(jax.tree.structure(self.model), map(jnp.asarray, _leaves(part)))
            for part in (tree["params"], tree["mean"], tree["square"])
        )
        self.steps = steps


def _rate(group: ssmcore.ParamGroup, lr: float) -> float:
    if group.lr_scale is not None:
        return group.lr_scale * lr
    return lr if group.lr is None else group.lr


def _leaves(tree: Any) -> list[Any]:
    return jax.tree.leaves(tree)


def _loss(model: ssm.Module, u: Any, labels: Any, key: Any) -> tuple[Any, Any]:
    logits, statistics = model(u, training=True, key=key)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)
    return -chosen.mean(), statistics


@jax.jit
def _step(
    before: Any, rates: Any, decays: Any, count: Any, u: Any, labels: Any, key: Any
) -> tuple[Any, Any]:
    """Return model, mean and square after step number ``count``, from 1; and the loss before it."""
    model, mean, square = before
    (loss, statistics), grads = jax.value_and_grad(_loss, has_aux=True)(model, u, labels, key)
    norm = jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads)))
    grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, 1.0 / (norm + 1e-6)), grads)
    mean = jax.tree.map(lambda m, g: MEAN * m + (1 - MEAN) * g, mean, grads)
    square = jax.tree.map(lambda s, g: SQUARE * s + (1 - SQUARE) * g**2, square, grads)
    m_scale, s_scale = 1 / (1 - MEAN**count), 1 / (1 - SQUARE**count)

    def moved(p: Any, m: Any, s: Any, rate: Any, decay: Any) -> Any:
        return p - rate * (decay * p + m_scale * m / (jnp.sqrt(s_scale * s) + EPS))

    model = jax.tree.map(moved, model, mean, square, rates, decays)
    return (model.with_statistics(statistics), mean, square), loss


@jax.jit
def _logits(model: ssm.Module, u: Any) -> Any:
    return model(u)


@jax.jit
def _stream(model: ssm.Module, u: Any, state: Any) -> Any:
    return model(u, state, return_state=True)

"""A model and AdamW in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import ssmcore_torch as ssm
import torch

import ssmcore
from ssmcore import checkpoints
from ssmcore.module import Module

Array = np.ndarray
MOMENTS = {"mean": "exp_avg", "square": "exp_avg_sq"}  # our names, torch's


class TorchTrainer:
    """See ``training.Trainer``."""

    def __init__(self, definition: Module, lr: float, weight_decay: float, seed: int) -> None:
        """Draw the parameters; each group has its own learning rate and weight decay."""
        self.model = ssm.Module(definition, seed=seed)
        groups = self.model.param_groups(lr=lr)
        self.optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def step(self, u: Array, labels: Array, factor: float, key: tuple[int, int]) -> float:
        """Take one step with gradients clipped to norm 1."""
        self.model.train()
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = factor * rate
        self.optimizer.zero_grad()
        logits = self.model(torch.from_numpy(u), key=key)
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, -2), torch.from_numpy(labels).flatten()
        )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def logits(self, u: Array) -> Array:
        """Return the answers, without dropout."""
        logits: Array = self.model.eval()(torch.from_numpy(u)).numpy()
        return logits

    @torch.no_grad()
    def stream(self, u: Array, state: Any) -> tuple[Array, Any]:
        """Return the answers and the state after them."""
        logits, state = self.model.eval()(torch.from_numpy(u), state, return_state=True)
        return logits.numpy(), state

    def tree(self) -> dict[str, Any]:
        """Return parameters and moments; a moment has the name of its parameter."""
        params = ssmcore.move(self.model.params, backend="numpy")
        named = dict(self.model.named_parameters())
        moments = {
            ours: checkpoints.unflatten(
                {name: self.optimizer.state[x][theirs].numpy() for name, x in named.items()}
            )
            for ours, theirs in MOMENTS.items()
        }
        return {"params": params, **moments}

    def restore(self, tree: dict[str, Any], steps: int) -> None:
        """Copy parameters and moments back."""
        flat = {name: checkpoints.flatten(part) for name, part in tree.items()}
        self.model.load_state_dict({k: torch.tensor(x) for k, x in flat["params"].items()})
        for name, x in self.model.named_parameters():
            moments = {theirs: torch.tensor(flat[ours][name]) for ours, theirs in MOMENTS.items()}
            self.optimizer.state[x] = {"step": torch.tensor(float(steps)), **moments}

"""Pooling over the steps that are not padding, with a state: what has been seen so far."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ssmcore import arrays
from ssmcore._arguments import check_count
from ssmcore._options import hyperparameters
from ssmcore.composition import Pass
from ssmcore.errors import check_choice
from ssmcore.module import Module
from ssmcore.networks.padding import last_valid
from ssmcore.typing import Array, Params, State

__all__ = ["Pool"]


@hyperparameters
class Pool(Module):
    """From (..., L, H) to (..., H): the mean, the last or the largest of all steps so far.

    State: total (H), the sum, last or largest, and count (), the steps so far; no steps give 0.
    A part of SequenceClassifier, which calls it.

    Attributes
    ----------
    d_model : int
        Channels H.
    kind : "mean", "last" or "max"
    """

    d_model: int
    kind: str = "mean"

    KINDS: ClassVar = ("mean", "last", "max")

    def _check_options(self) -> None:
        check_count(self.name, d_model=self.d_model)
        check_choice(self.name, "pooling", self.kind, (*self.KINDS, "none"))

    def state_shapes(self) -> dict[str, Any]:
        """Return {"total": (H,), "count": ()}."""
        return {"total": (self.d_model,), "count": ()}

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        xp, batch, L = arrays.namespace(u), tuple(u.shape[:-2]), u.shape[-2]
        x = xp.astype(u, how.dtype, copy=False)
        where = arrays.device(u)
        if how.lengths is None:
            steps = xp.full(batch, L, dtype=x.dtype, device=where)
        else:
            steps = xp.astype(how.lengths, x.dtype)
        if state is None:
            zero = xp.zeros(batch, dtype=x.dtype, device=where)
            state = {"total": xp.zeros((*batch, self.d_model), dtype=x.dtype, device=where)}
            state["count"] = zero
        total = self._total(x, state["total"], state["count"], steps, how)
        count = state["count"] + steps
        y = total
        if self.kind == "mean":
            y = total / xp.clip(count, min=1.0)[..., None]
        after = {"total": total, "count": count} if how.return_state else None
        return xp.astype(y, u.dtype, copy=False), after

    def _total(self, x: Array, before: Array, seen: Array, steps: Array, how: Pass) -> Array:
        """Return the sum, last or largest of the steps of x and of those before."""
        xp = arrays.namespace(x)
        if x.shape[-2] == 0:
            return before + xp.zeros_like(before)
        some = (steps > 0)[..., None]
        if self.kind == "last":
            return xp.where(some, last_valid(x, how.lengths), before)
        if self.kind == "mean":
            if how.valid is not None:
                x = xp.where(how.valid[..., None], x, xp.zeros_like(x))
            return before + xp.sum(x, axis=-2)
        if how.valid is not None:
            x = xp.where(how.valid[..., None], x, xp.full_like(x, -math.inf))
        largest = xp.max(x, axis=-2)
        larger = xp.where((seen > 0)[..., None], xp.maximum(before, largest), largest)
        return xp.where(some, larger, before)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Refuse: a pool is a part of a network."""
        raise TypeError(self)

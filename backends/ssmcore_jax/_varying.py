"""Types of arrays inside ``jax.shard_map``, which name the axes over which an array varies."""

from __future__ import annotations

from typing import Any

import jax
from jax import lax

__all__ = ["varies", "varying_alike"]


def varying_alike(tree: Any) -> Any:
    """Return ``tree`` with all arrays varying over the same axes, as the carry of a loop must."""
    leaves, structure = jax.tree.flatten(tree)
    axes = [_varying(x) for x in leaves]
    every = frozenset[Any]().union(*axes)
    if every:
        leaves = [
            lax.pcast(x, tuple(sorted(every - own, key=str)), to="varying") if every - own else x
            for x, own in zip(leaves, axes, strict=True)
        ]
    return jax.tree.unflatten(structure, leaves)


def varies(tree: Any) -> bool:
    """Whether any array of ``tree`` varies over axes of devices."""
    return any(_varying(x) for x in jax.tree.leaves(tree))


def _varying(x: Any) -> frozenset[Any]:
    """Return the axes over which ``x`` varies; none before JAX had ``pcast``.

    The attribute was called ``vma`` at first.
    """
    kind = jax.typeof(x) if hasattr(lax, "pcast") else None
    found = getattr(getattr(kind, "mat", None), "varying", None) or getattr(kind, "vma", None)
    return frozenset(found or ())

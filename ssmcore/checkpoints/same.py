"""Whether two modules compute the same from the same parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from ssmcore.blocks import Dropout
from ssmcore.composition import Composed, flattened
from ssmcore.module import Module

__all__ = ["difference"]

_INITIAL = """
    a_initialization dt_init_floor dt_init_scale dt_initialization dt_max dt_min embedding_std
    gain gradient_cap initialization max_rad min_rad output_gain std dropout
"""
INITIAL = frozenset(_INITIAL.split())
"""Hyper-parameters of initial weights and of training alone."""
_RESOLVED = "block blocks d_out d_rnn dt_rank expand head_dim mlp_norm norm"
RESOLVED = frozenset(_RESOLVED.split())
"""Those that shapes or parts say."""


def difference(one: Module, two: Module) -> str:
    """Return the first difference between two modules that outputs could show, or nothing.

    Initial weights and dropout do not count.

    Examples
    --------
    >>> from ssmcore.blocks import Mamba, RMSNorm
    >>> difference(Mamba(16), Mamba(16, dt_rank=1, dt_min=0.1))
    ''
    >>> difference(RMSNorm(4), RMSNorm(4, offset=1.0))
    'offset is 0.0, not 1.0'
    """
    first, second = dict(_said(one, "")), dict(_said(two, ""))
    first |= {f"shape of {k}": v for k, v in flattened(one.shapes()).items()}
    second |= {f"shape of {k}": v for k, v in flattened(two.shapes()).items()}
    for name in [*first, *second]:
        if first.get(name) != second.get(name):
            return f"{name} is {first.get(name)!r:.60}, not {second.get(name)!r:.60}"
    return ""


def _said(module: Composed, where: str) -> Iterator[tuple[str, Any]]:
    """Yield the hyper-parameters that outputs show, of a module and its parts, by dotted names."""
    yield f"{where}kind", type(module).__name__
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        if field.name not in INITIAL | RESOLVED and not isinstance(value, Module):
            yield where + field.name, value
    for name, part in module.parts().items():
        if not isinstance(part, Dropout):
            yield from _said(part, f"{where}{name}.")

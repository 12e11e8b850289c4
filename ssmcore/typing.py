"""Types and the legend of shape letters used in every docstring.

``L`` length, ``H`` channels (``d_model``), ``N`` or ``P`` state size (stored numbers),
``r`` rank of a low-rank correction, ``...`` any leading batch axes.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeAlias

__all__ = ["Array", "Namespace", "Params", "State"]

Array: TypeAlias = Any
"""An array of any library that follows the array API standard."""

Namespace: TypeAlias = ModuleType | Any
"""An array API namespace."""

Params: TypeAlias = dict[str, Any]
"""A (nested) dict of real arrays; a complex parameter has a trailing axis (re, im)."""

State: TypeAlias = dict[str, Any]
"""A dict of real arrays; a complex state has a trailing axis (re, im)."""

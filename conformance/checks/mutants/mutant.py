"""A planted fault: one small change of the source, and the property that must notice it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "CONVOLUTION",
    "ENGINE",
    "FOLDER",
    "KERNEL",
    "RULES",
    "SCAN",
    "SYSTEMS",
    "Mutant",
]


class Mutant(NamedTuple):
    """A fault, where it is planted, and who must find it."""

    name: str
    file: str
    old: str
    new: str
    killed_by: str
    backend: str = "numpy"


SCAN = "ssmcore/primitives/_reference_scan.py"
CONVOLUTION = "ssmcore/primitives/_reference_convolution.py"
KERNEL = "ssmcore/primitives/_reference_kernel.py"
RULES = "ssmcore/discretization.py"
ENGINE = "ssmcore/engine.py"
SYSTEMS = "ssmcore/systems.py"
FOLDER = "ssmcore/layers"

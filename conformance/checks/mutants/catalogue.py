"""Planted faults: one small change of the source each, and the property that must notice it.

A fault is a replacement in one file of a copy of the project; ``killed_by`` names the test that
has to fail because of it. A text that is no longer there, or that is there more than once, is an
error: the catalogue is kept up with the source.
"""

from __future__ import annotations

from checks.mutants.of_gradients import GRADIENTS
from checks.mutants.of_layers import LAYERS
from checks.mutants.of_memory_and_size import MEMORY_AND_SIZE
from checks.mutants.of_primitives import PRIMITIVES

__all__ = ["CATALOGUE"]

CATALOGUE = (*PRIMITIVES, *MEMORY_AND_SIZE, *LAYERS, *GRADIENTS)

"""The rows of the table, by name."""

from __future__ import annotations

from benchmarks.rows import diagonal, gpu, kernels, language, layers, linear, selective
from benchmarks.work import Row

__all__ = ["ROWS"]

MODULES = (linear, selective, kernels, diagonal, layers, language, gpu)
ROWS: dict[str, Row] = {row.name: row for module in MODULES for row in module.ROWS}

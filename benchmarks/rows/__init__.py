"""The rows of the table, by name."""

from __future__ import annotations

from benchmarks.rows import linear, selective
from benchmarks.work import Row

__all__ = ["ROWS"]

ROWS: dict[str, Row] = {row.name: row for module in (linear, selective) for row in module.ROWS}

"""The report in the terminal: worst errors by subject, one line per comparison and dtype."""

from __future__ import annotations

from typing import Any

from ssmcore_conformance.report import merged
from ssmcore_conformance.worst import share, shown

__all__ = ["table"]

COLUMN = 22


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the table: each backend's worst error, and its share of the tolerance."""
    subjects: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["worst"]:
            subjects.setdefault(row["subject"], []).append(row)
    if not subjects:
        return []
    names = sorted({backend for row in rows for _, backend, *_ in row["worst"]})
    width = max(len(what) for row in rows for what, *_ in row["worst"])
    lines = [f"  {'':{width}}  {'':10}  {''.join(f'{name:{COLUMN}}' for name in names)}".rstrip()]
    for subject, members in subjects.items():
        lines.append(subject)
        by_line: dict[tuple[str, str], dict[str, str]] = {}
        for (what, backend, dtype), figures in sorted(merged(members).found.items()):
            cell = f"{figures[0]:.1e} ({shown(share(*figures))})"
            by_line.setdefault((what, dtype), {})[backend] = cell
        for (what, dtype), cells in by_line.items():
            figures_of_all = "".join(f"{cells.get(name, '-'):{COLUMN}}" for name in names)
            lines.append(f"  {what:{width}}  {dtype:10}  {figures_of_all}".rstrip())
    return lines

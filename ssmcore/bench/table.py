"""The report of ``ssmcore bench`` for people: one table and one line."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssmcore.bench.run import Report, Row

__all__ = ["show"]

LEFT = ("", "backend", "floor")
COLUMNS = (
    "", "backend", "first s", "compile s", "ms", "quartiles", "floor", "ms ", "ratio",
    "fwd+bwd ms", "peak MiB", "error",
)  # fmt: skip


def show(report: Report, console: Console) -> None:
    """Print ``report`` on a rich console."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in LEFT else "right", overflow="fold")
    for index, row in enumerate(report.rows):
        last = index + 1 == len(report.rows) or report.rows[index + 1].name != row.name
        table.add_row(*_cells(row), end_section=last)
    console.print(table)
    for row in report.rows:
        if row.problem:
            line = f"FAILED {row.name} on {row.backend}: {row.problem}"
            console.print(Text(line, style="bold red"), soft_wrap=True)
    size = report.size
    lines = [
        f"B {size.batch}, L {size.length}, H {size.channels}, N {size.states}; float32; "
        f"{report.machine['processor']}, {report.machine['cores']} cores, {report.date}",
        "floor: an addition that moves inputs and output once, or the matrix products of the "
        "system, in the same library and run; ratio: the median over rounds of ms over floor",
        "error: from NumPy in float64; peak: memory at its worst above what was there",
    ]
    if report.quick:
        lines.append("quick: small inputs and single calls; these figures mean nothing")
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _cells(row: Row) -> list[str]:
    """Return one row as text."""
    if row.forward is None or row.floor is None:
        return [row.name, row.backend, *[""] * (len(COLUMNS) - 3), "failed"]
    forward = row.forward
    return [
        row.name,
        row.backend,
        f"{row.first_call_s:.2f}",
        f"{row.compile_s:.2f}",
        _ms(forward["median_s"]),
        f"{_ms(forward['first_quartile_s'])}–{_ms(forward['third_quartile_s'])}",
        row.floor_name,
        _ms(row.floor["median_s"]),
        f"{row.ratio:.3g}",
        "-" if row.backward is None else _ms(row.backward["median_s"]),
        "-" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.1f}",
        "-" if row.error is None else f"{row.error:.1e}",
    ]


def _ms(seconds: Any) -> str:
    ms = seconds * 1e3
    return f"{ms:.0f}" if ms >= 1000 else f"{ms:.3g}"

"""``python -m benchmarks.record RESULT.json``: a run as the Markdown table of the README."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.plot import caption, read
from benchmarks.table import SIGNS, reached

__all__ = ["markdown"]

LIBRARIES = ("numpy", "torch", "jax")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def markdown(report: Mapping[str, Any]) -> str:
    """Return all rows with their bars, and the exponents of all curves; misses stand in bold."""
    lines = [
        f"{caption(report)}.",
        "",
        "| work | " + " | ".join(LIBRARIES) + " |",
        "|---" * 4 + "|",
    ]
    cells: dict[str, dict[str, str]] = {}
    for row in report["rows"]:
        cells.setdefault(row.get("what", row["row"]), {})[row.get("library", "")] = _cell(row)
    for curve in report["curves"]:
        work = f"{curve['curve'].removeprefix('cost_')}, {curve['what']}"
        cells[work] = {one["library"]: _exponents(curve, one) for one in curve["libraries"]}
    for work, found in cells.items():
        lines.append(f"| {work} | " + " | ".join(found.get(lib, "") for lib in LIBRARIES) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: Mapping[str, Any]) -> str:
    if "failed" in row:
        return f"**failed**: {row['failed']}"
    return "; ".join(_bar(bar) for bar in row["bars"])


def _bar(bar: Mapping[str, Any]) -> str:
    of = bar["against"] or bar["what"]
    text = (
        f"{of} {reached(bar, bar['reached'])} ({SIGNS[bar['what']]} {reached(bar, bar['limit'])})"
    )
    return text if bar["holds"] else f"**{text}**"


def _exponents(curve: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    powers = [one["exponents"][key] for key in ("time", "memory")]
    shown = ["-" if p is None else f"{curve['axis']}^{p:.2f}" for p in powers]
    text = f"time {shown[0]}, memory {shown[1]}"
    return f"**{text}**" if one["holds"] is False else text


@app.command()
def main(
    result: Annotated[
        Path, typer.Argument(metavar="RESULT", help="What --json of a run has written.")
    ],
) -> None:
    """Print the rows of a run with their bars as a table in Markdown."""
    try:
        report = read(result)
    except ValueError as error:
        print(f"error: {str(result)!r}: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    print(markdown(report), end="")


if __name__ == "__main__":
    app()

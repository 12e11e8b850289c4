"""The tables of a run, for a terminal or a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["SIGNS", "reached", "show"]

COLUMNS = ("row", "ours ms", "quartiles", "against", "ms", "reached", "bar", "holds")
APART = ("row", "first call s", "compile s", "steady ms", "extra MiB", "error", "allowed")
SIGNS = {"faster": "≥", "slower": "≤", "error": "≤", "compile": "≤", "memory": "≤"}
MIB = 2**20


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print what is apart, peers, curves, and at the end the rows with their bars."""
    rows = [row for row in report["rows"] if "failed" not in row]
    console = console if console.is_terminal else Console(highlight=False, width=170, no_color=True)
    if rows:
        console.print(_apart(rows))
        console.print(_peers(rows))
    for curve in report["curves"]:
        if "failed" not in curve:
            console.print(_curve(curve))
    for name, how in report["peers_not_installed"].items():
        console.print(Text(f"not installed: {name}; install it with: {how}"), soft_wrap=True)
    console.print(_bars(rows))
    for found in (*report["rows"], *report["curves"]):
        if "failed" in found:
            line = f"FAILED {found['row']}: {found['failed']}"
            console.print(Text(line, style="bold red"), soft_wrap=True)
    console.print(Text(_summary(report)), soft_wrap=True)


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for name in columns:
        left = name in ("row", "against", "peer", "holds", "what", "")
        table.add_column(
            name, justify="left" if left else "right", overflow="fold", no_wrap=name == "row"
        )
    return table


def _bars(rows: list[Mapping[str, Any]]) -> Table:
    table = _table("rows and bars", COLUMNS)
    for row in rows:
        ours = row["ours"]
        for index, bar in enumerate(row["bars"]):
            why = f" {bar['why']}" if "why" in bar else ""
            table.add_row(
                row["row"] if index == 0 else "",
                _ms(ours["median_s"]),
                f"{_ms(ours['first_quartile_s'])}–{_ms(ours['third_quartile_s'])}",
                bar["against"] or bar["what"],
                "" if bar["other_s"] is None else _ms(bar["other_s"]),
                reached(bar, bar["reached"]),
                f"{SIGNS[bar['what']]} {reached(bar, bar['limit'])}",
                _holds(bar["holds"]) + Text(why),
                end_section=index == len(row["bars"]) - 1,
            )
    return table


def _apart(rows: list[Mapping[str, Any]]) -> Table:
    table = _table("ssmcore alone: errors against float64, memory beyond what is returned", APART)
    for row in rows:
        ours, extra = row["ours"], row["ours"]["extra_bytes"]
        table.add_row(
            row["row"],
            f"{ours['first_call_s']:.2f}",
            f"{ours['compile_s']:.2f}",
            _ms(ours["median_s"]),
            "-" if extra is None else f"{extra / MIB:.1f}",
            f"{max(ours['errors']):.1e}",
            f"{max(ours['tolerances']):.1e}",
        )
    return table


def _peers(rows: list[Mapping[str, Any]]) -> Table:
    table = _table(
        "floors and peers: each peer equal to ours before it is timed",
        ("row", "peer", "error", "allowed", "ms", "quartiles", "ours / it", "it / ours", ""),
    )
    for row in rows:
        label = row["row"]  # once, at the first line
        for name, found in (*row["floors"].items(), *row["peers"].items()):
            table.add_row(label, name, *_beside(row, found))
            label = ""
        for name, why in row["left_out"].items():
            table.add_row(label, name, *[""] * 6, Text(f"left out: {why}"))
            label = ""
    return table


def _beside(row: Mapping[str, Any], found: Mapping[str, Any]) -> list[str | Text]:
    """Return one floor or peer as cells: error, allowed, times, ratios, status."""
    gaps, status = found.get("errors"), found.get("status", "floor")
    cells: list[str | Text] = ["", ""]
    if gaps:
        cells = [f"{max(gaps):.1e}", f"{max(row['ours']['tolerances']):.1e}"]
    times = [""] * 4
    if "median_s" in found:
        ratio = found["ours_over_this"]
        spread = f"{_ms(found['first_quartile_s'])}–{_ms(found['third_quartile_s'])}"
        times = [_ms(found["median_s"]), spread, f"{ratio:.3g}", f"{1 / ratio:.3g}"]
    return [*cells, *times, Text(found.get("why", status))]


def _curve(curve: Mapping[str, Any]) -> Table:
    sizes = [f"{size}" for size in curve["sizes"]]
    title = f"{curve['curve']} {curve['what']}: ms against {curve['axis']}"
    table = _table(title, ("", *sizes, "time ~", "memory ~", "bar", "holds"))
    for one in curve["libraries"]:
        powers = [one["exponents"][key] for key in ("time", "memory")]
        table.add_row(
            one["library"],
            *(_ms(seconds) for seconds in one["seconds"]),
            *("-" if p is None else f"{curve['axis']}^{p:.2f}" for p in powers),
            "-" if curve["limit"] is None else f"≤ {curve['limit']}",
            _holds(one["holds"]),
        )
    return table


def _summary(report: Mapping[str, Any]) -> str:
    """Return the last line: how many bars hold, on what, when."""
    judged = [bar["holds"] for row in report["rows"] for bar in row.get("bars", ())]
    judged += [one["holds"] for curve in report["curves"] for one in curve.get("libraries", ())]
    counts = {key: sum(holds is key for holds in judged) for key in (True, False)}
    made = report["machine"]
    small = "; quick: these figures mean nothing" if report["quick"] else ""
    return (
        f"{counts[True]} bars hold, {counts[False]} do not; {made['processor']}, "
        f"{report['threads']} of {made['cores']} cores, {report['date']}{small}"
    )


def _holds(holds: bool | None) -> Text:
    if holds is None:
        return Text("?", style="yellow")
    return Text("yes", style="green") if holds else Text("NO", style="bold red")


def reached(bar: Mapping[str, Any], value: float | None) -> str:
    """Return ``value`` in the unit of a bar."""
    if value is None:
        return "-"
    if bar["what"] == "memory":
        return f"{value / MIB:.3g} MiB"
    if bar["what"] == "error":
        return f"{value:.1e}"
    return f"{value:.3g} s" if bar["what"] == "compile" else f"{value:.3g}x"


def _ms(seconds: float) -> str:
    """Return milliseconds with three digits."""
    ms = seconds * 1e3
    return f"{ms:.0f}" if ms >= 1000 else f"{ms:.3g}"

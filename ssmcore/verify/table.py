"""The report of ``ssmcore verify`` for people: one table, failures, notes, one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssmcore.verify.report import Case, Comparison, Report

__all__ = ["show"]

SHOWN = 20


def _figure(found: Comparison | None) -> Text:
    if found is None:
        return Text("-", style="dim")
    return Text(f"{found.error:.1e}", style="" if found.passed else "bold red")


def _short(number: float) -> str:
    if number >= 1e5:
        return f"{number:.0e}"
    return f"{number:.1f}" if number < 100 else f"{number:.0f}"


def _ulps(case: Case) -> str:
    return _short(case.worst.ulps) if case.worst else "-"


def _allowed(case: Case) -> str:
    return f"{case.worst.oracle.tolerance:.0e}" if case.worst else "-"


def _result(case: Case) -> Text:
    return Text("ok", style="green") if case.passed else Text("FAILED", style="bold red")


NAMES: dict[str, Callable[[Case], str]] = {
    "model": lambda case: case.model,
    "backend": lambda case: case.backend,
    "dtype": lambda case: case.dtype,
}
FIGURES: dict[str, Callable[[Case], Text | str]] = {
    "ulp": _ulps,
    "error": lambda case: _figure(case.worst.oracle if case.worst else None),
    "allowed": _allowed,
    "modes": lambda case: _figure(case.between_modes),
    "eigenv.": lambda case: _figure(case.eigenvalues),
    "grad.": lambda case: _figure(case.gradients),
    "s": lambda case: _short(case.seconds),
}
ROOM = 80  # columns of text that all of them need
DISPENSABLE = ("ulp", "allowed", "s")


def _table(report: Report, width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1 if width >= 100 else 0))
    figures = {k: f for k, f in FIGURES.items() if width >= ROOM or k not in DISPENSABLE}
    for name in NAMES:
        table.add_column(name, overflow="fold", no_wrap=name != "backend")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    cases = report.cases
    for case, following in zip(cases, [*cases[1:], None], strict=True):
        cells = [show_it(case) for show_it in (*NAMES.values(), *figures.values(), _result)]
        table.add_row(*cells, end_section=following is None or following.model != case.model)
    return table


def _part(settings: Mapping[str, Any]) -> str:
    """Return how many channels of the input are used, where that is not all of them."""
    channels, used = settings["input_channels"], settings["d_model"]
    return f" (the first {used} of its {channels} channels)" if used < channels else ""


def show(report: Report, console: Console) -> None:
    """Print ``report``: table, what its columns are, notes, failures, summary."""
    console.print(_table(report, console.width))
    console.print()
    s = report.settings
    lines = [
        f"input: {s['input']}{_part(s)}, {s['batch']} x {s['length']} steps x {s['d_model']} "
        f"channels; d_state {s['d_state']}; seed {s['seed']}; modes: {', '.join(s['modes'])}",
        "ulp, error: worst output of any mode against the sequential float64 oracle, in ulps and "
        "parts of the peak; allowed: eps (64 + memory)",
        "modes: largest difference between two modes, of the peak; allowed 2e-5 float32, 1e-10 "
        "float64",
        "eigenv.: A_bar (a_t for S6, RGLRU) against the oracle; grad.: float64 gradients against "
        "the first backend that has them",
    ]
    for line in lines:
        console.print(Text(line, style="dim"), soft_wrap=not console.is_terminal)
    for note in report.notes:
        console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
    console.print()
    for failure in report.failures[:SHOWN]:
        console.print(Text(f"FAILED {failure}", style="red"), soft_wrap=True)
    if len(report.failures) > SHOWN:
        console.print(f"... and {len(report.failures) - SHOWN} more; --json FILE holds them all")
    style = "bold green" if report.passed else "bold red"
    console.print(Text(report.summary(), style=style), soft_wrap=True)

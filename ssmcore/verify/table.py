"""The report of ``ssmcore verify`` for people: one table, failures, notes, one line."""

from __future__ import annotations

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


def _row(case: Case) -> list[Text | str]:
    worst = case.worst
    result = Text("ok", style="green") if case.passed else Text("FAILED", style="bold red")
    return [
        case.model,
        case.backend,
        case.dtype,
        "-" if worst is None else f"{worst.ulps:.1f}",
        _figure(worst.oracle if worst else None),
        "-" if worst is None else f"{worst.oracle.tolerance:.0e}",
        _figure(case.between_modes),
        _figure(case.eigenvalues),
        _figure(case.gradients),
        f"{case.seconds:.1f}",
        result,
    ]


def _table(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("model", "backend", "dtype"):
        table.add_column(name, no_wrap=True)
    numbers = ("ulp", "error", "allowed", "modes", "eigenv.", "grad.", "s")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    cases = report.cases
    for case, following in zip(cases, [*cases[1:], None], strict=True):
        table.add_row(*_row(case), end_section=following is None or following.model != case.model)
    return table


def show(report: Report, console: Console) -> None:
    """Print ``report``: table, what its columns are, notes, failures, summary."""
    console.print(_table(report))
    s = report.settings
    lines = [
        f"input: {s['input']}, {s['batch']} x {s['length']} steps x {s['d_model']} channels; "
        f"d_state {s['d_state']}; seed {s['seed']}; modes: {', '.join(s['modes'])}",
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

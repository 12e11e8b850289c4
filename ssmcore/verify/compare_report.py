"""What ``ssmcore.verify.compare`` found, as plain data and as plain text."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssmcore._reporting import write_json
from ssmcore.verify.compare_judge import DIFFERENT, EQUAL, ROUNDING, UNDECIDED, Part

__all__ = ["Block", "CompareReport", "overall"]


def overall(verdicts: list[str]) -> str:
    """Return the worst of ``verdicts``."""
    return max(verdicts, key=[EQUAL, ROUNDING, UNDECIDED, DIFFERENT].index)


@dataclass(frozen=True)
class Block:
    """One block of a stack.

    Attributes
    ----------
    name : str
    parts : list of Part
        Of the block alone: both sides get the reference's input.
    running : Part
        The output after this block, each side fed by its own blocks before.
    """

    name: str
    parts: list[Part]
    running: Part

    @property
    def verdict(self) -> str:
        """The verdict on the block alone."""
        return overall([part.verdict for part in self.parts])

    @property
    def first(self) -> Part | None:
        """The first part of the block alone that differs, or None."""
        return next((part for part in self.parts if part.verdict == DIFFERENT), None)


@dataclass(frozen=True)
class CompareReport:
    """Two models compared.

    Attributes
    ----------
    reference, candidate : str
        What was compared.
    dtype : "float32" or "float64"
        The precision asked for: that of the parameters, else of the input.
    parts : list of Part
        Outputs, states, gradients; of a stack the last output.
    blocks : list of Block
        Empty for models that are no stack.
    notes : list of str
        What was left out, and why.
    """

    reference: str
    candidate: str
    dtype: str
    parts: list[Part]
    blocks: list[Block]
    notes: list[str]

    @property
    def verdict(self) -> str:
        """One of "equal bit for bit", "rounding", "undecided", "different": the worst there is."""
        found = [part.verdict for part in self.parts] + [block.verdict for block in self.blocks]
        return overall(found)

    @property
    def passed(self) -> bool:
        """Whether the models are shown to be the same: equal, or different by rounding only."""
        return self.verdict in (EQUAL, ROUNDING)

    @property
    def first(self) -> Part | None:
        """The first part that differs: its ``first`` is the place. None where nothing does."""
        parts = [block.first for block in self.blocks] + list(self.parts)
        return next((part for part in parts if part and part.verdict == DIFFERENT), None)

    @property
    def first_block(self) -> Block | None:
        """The first block that differs when both sides get the reference's input."""
        return next((block for block in self.blocks if block.first), None)

    @property
    def first_running_block(self) -> Block | None:
        """The first block after which the outputs of the two stacks part."""
        return next((b for b in self.blocks if b.running.verdict == DIFFERENT), None)

    def __str__(self) -> str:
        lines = [f"reference: {self.reference}", f"candidate: {self.candidate}", ""]
        lines += _table(self.blocks, self.parts)
        lines += ["", *_findings(self), *(f"note: {note}" for note in self.notes), ""]
        return "\n".join([*lines, f"verdict: {self.verdict}"])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values; infinite figures as text."""
        found = {"verdict": self.verdict, "passed": self.passed, **dataclasses.asdict(self)}
        plain: dict[str, Any] = _plain(found)
        return plain

    def to_json(self) -> str:
        """Return everything as strict JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def write_json(self, path: str | Path) -> None:
        """Write the report to ``path``, wholly or not at all."""
        write_json(path, self.to_dict())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _table(blocks: list[Block], parts: list[Part]) -> list[str]:
    """Return one line a part: name, figures in each precision with their bounds, verdict."""
    rows = [
        (name, part)
        for block in blocks
        for name, part in [
            *((f"{block.name}: {p.name}", p) for p in block.parts),
            (f"after {block.name}", block.running),
        ]
    ] or [(part.name, part) for part in parts]
    head = ("", "float32", "allowed", "float64", "allowed", "growth", "verdict")
    cells = [head, *((name, *_cells(part)) for name, part in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    last = len(head) - 1
    return [
        "  ".join(
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _cells(part: Part) -> tuple[str, ...]:
    figures: list[str] = []
    for dtype in ("float32", "float64"):
        found = part.figures.get(dtype)
        figures += ["-", "-"] if found is None else [f"{found.error:.1e}", f"{found.allowed:.0e}"]
    growth = "-" if part.growth is None else f"t^{round(part.growth, 1) + 0.0:.1f}"
    return (*figures, growth, part.verdict)


def _findings(report: CompareReport) -> list[str]:
    """Return where the sides part first, and what the verdicts rest on."""
    alone, running = report.first_block, report.first_running_block
    lines = []
    if alone is not None and alone.first is not None:
        lines.append(
            f"{alone.name} is the first block that differs when both get the reference's input: "
            f"{alone.first.name} at {alone.first.first}"
        )
    if running is not None:
        lines.append(f"outputs part after {running.name}: at {running.running.first}")
    if not report.blocks:
        lines += [f"{p.name} parts first at {p.first}" for p in report.parts if p.first]
    counted = [part for block in report.blocks for part in block.parts] or report.parts
    reasons: dict[str, list[str]] = {}
    for part in counted:
        if part.verdict != EQUAL:
            reasons.setdefault(part.reason, []).append(part.name)
    for reason, names in reasons.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"{names[0]}{more}: {reason}")
    return lines

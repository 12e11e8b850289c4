"""The text of the kernels, as a compiler gets it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDER", "Source"]

FOLDER = Path(__file__).parent / "kernels"


@dataclass(frozen=True)
class Source:
    """One file of kernels with the constants it is compiled for."""

    file: str
    constants: tuple[tuple[str, str | int], ...]

    @functools.cached_property
    def text(self) -> str:
        """The text that a compiler gets: it includes nothing."""
        defines = "".join(f"#define {name} {value}\n" for name, value in self.constants)
        return defines + "".join(_read(file) for file in ("common.cuh", self.file))


@functools.cache
def _read(file: str) -> str:
    return (FOLDER / file).read_text()

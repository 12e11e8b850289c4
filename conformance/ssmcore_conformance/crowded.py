"""Whether a process nears its limit of memory mappings, which ends it without a word.

A library that compiles keeps a few mappings for each program; a long run compiles thousands.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["crowded"]

LIMIT = Path("/proc/sys/vm/max_map_count")
"""Where Linux says how many mappings a process may have; other systems have no such limit."""


def crowded(share: float = 0.5, mappings: Path = Path("/proc/self/maps")) -> bool:
    """Whether more than ``share`` of the mappings that a process may have are taken."""
    if not LIMIT.exists():
        return False
    with mappings.open("rb") as lines:
        return sum(1 for _ in lines) > share * int(LIMIT.read_text())

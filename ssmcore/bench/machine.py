"""Which machine a figure was taken on: its kind, not its name."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["cores", "describe", "today", "versions"]


def describe() -> dict[str, Any]:
    """Return processor, cores and memory.

    Examples
    --------
    >>> sorted(describe())
    ['cores', 'memory_gib', 'processor', 'python', 'system']
    """
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def today() -> str:
    """Return the date in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the version of each of ``distributions`` that is installed.

    Examples
    --------
    >>> list(versions(["numpy", "no-such-distribution"]))
    ['numpy']
    """
    found = {}
    for name in distributions:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):  # a system that does not say
        return None

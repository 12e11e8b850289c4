"""Peak memory of a call: what the process holds at its worst, above what it held before."""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["peak"]

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
SMALL, USUAL = 2**16, 2**25
"""From which size on the allocator hands memory back; glibc itself goes up to the second."""
CALLS = 3


def peak(call: Callable[[], Any]) -> int | None:
    """Return the bytes that ``call`` adds to the resident memory of this process at its worst.

    What ``call`` returns is part of it. The least of three calls is given, because what other
    threads touch meanwhile counts too. The high-water mark of the kernel is reset before each, and
    the allocator is told to hand back what is freed, from 64 KiB upwards, which takes time, and
    afterwards to keep what is smaller than 32 MiB. ``call`` must have run before.

    Returns
    -------
    Bytes; None where the system keeps no high-water mark that can be reset (not Linux).

    Examples
    --------
    >>> import numpy as np
    >>> grown = peak(lambda: np.ones(10**6))
    >>> grown is None or 8 * 10**6 <= grown < 9 * 10**6
    True
    """
    if not _prepared():
        return None
    try:
        call()
        return min(_grown(call) for _ in range(CALLS))
    finally:
        _hand_back_from(USUAL)


def _grown(call: Callable[[], Any]) -> int:
    _hand_back()
    CLEAR.write_text("5")
    before = _kilobytes("VmRSS")
    kept = call()
    after = _kilobytes("VmHWM")
    del kept
    return max(0, after - before) * 1024


def _prepared() -> bool:
    """Whether the high-water mark can be reset; the allocator is set up where it can."""
    if sys.platform != "linux":
        return False
    try:
        CLEAR.write_text("5")
        _hand_back_from(SMALL)
    except (OSError, AttributeError):  # no permission; a C library without mallopt
        return False
    return True


def _hand_back_from(size: int) -> None:
    _libc().mallopt(M_MMAP_THRESHOLD, size)
    _libc().mallopt(M_TRIM_THRESHOLD, 2 * size)


def _hand_back() -> None:
    gc.collect()
    _libc().malloc_trim(0)


def _libc() -> Any:
    return ctypes.CDLL(ctypes.util.find_library("c"))


def _kilobytes(name: str) -> int:
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(name + ":"))
    return int(line.split()[1])

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
M_MMAP_THRESHOLD, SMALL = -3, 65536
CALLS = 3


def peak(call: Callable[[], Any]) -> int | None:
    """Return the bytes that ``call`` adds to the resident memory of this process at its worst.

    What ``call`` returns is part of it. The least of three calls is given, because what other
    threads touch meanwhile counts too. The high-water mark of the kernel is reset before each, and
    the allocator is told to hand back what is freed, from 64 KiB upwards: this slows the process
    down from now on, so take times before. ``call`` must have run before.

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
    call()
    return min(_grown(call) for _ in range(CALLS))


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
        _libc().mallopt(M_MMAP_THRESHOLD, SMALL)
    except (OSError, AttributeError):  # no permission; a C library without mallopt
        return False
    return True


def _hand_back() -> None:
    gc.collect()
    _libc().malloc_trim(0)


def _libc() -> Any:
    return ctypes.CDLL(ctypes.util.find_library("c"))


def _kilobytes(name: str) -> int:
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(name + ":"))
    return int(line.split()[1])

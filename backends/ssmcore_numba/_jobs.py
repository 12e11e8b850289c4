"""Jobs of a kernel over threads: numba lets go of the interpreter, so plain threads will do.

No OpenMP: a kernel may be called from several threads at once and after a fork.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np

__all__ = ["kernel", "read_only", "run", "threads_allowed"]

_jit: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


def kernel(function: Callable[..., Any]) -> Any:
    """Compile ``function`` once, keep it on disk, and let it run beside others."""
    return _jit(function)


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Return the threads of this process: a fork has none of its parent's."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="ssmcore")


def threads_allowed() -> int:
    """Return how many threads numba may use, without starting them.

    ``numba.get_num_threads`` starts them, where they are OpenMP's by setting OpenMP's number of
    threads: that of torch. It is asked where numba has started them already.
    """
    try:
        numba.threading_layer()
    except ValueError:  # not started: nobody has set another number
        return int(numba.config.NUMBA_NUM_THREADS)
    return int(numba.get_num_threads())


def run(compiled: Any, jobs: int, threads: int, *arguments: Any) -> None:
    """Run ``compiled(first, last, *arguments)`` over all jobs, in up to ``threads`` threads."""
    parts = max(1, min(jobs, threads))
    cuts = [jobs * k // parts for k in range(parts + 1)]
    others = [
        _pool(os.getpid()).submit(compiled, cuts[k], cuts[k + 1], *arguments)
        for k in range(1, parts)
    ]
    compiled(cuts[0], cuts[1], *arguments)
    for other in others:
        other.result()


def read_only(x: Any) -> Any:
    """Return a contiguous, aligned, read-only array: one type, for which kernels compile once."""
    view = np.require(x, requirements=["C", "A"]).view()
    view.flags.writeable = False
    return view

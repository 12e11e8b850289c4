"""Kernels in CUDA C, run on the CPU: what ``ssmcore_cupy`` calls a launcher, with NumPy arrays."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ssmcore_cuda.source import Source

__all__ = ["BACKWARD", "FORWARD", "HostLaunch", "StuckError", "library_of", "missing"]

FORWARD, BACKWARD = 0, 1
"""Orders in which the threads of a block run; any other number is the seed of a random one."""

HERE = Path(__file__).parent
KERNELS = re.compile(r"__global__ void __launch_bounds__\([^)]*\)\s*(\w+)\(")
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-fvisibility=hidden")
STRICT = ("-Wall", "-Werror", "-Wno-unknown-pragmas")


class StuckError(RuntimeError):
    """Threads wait at a barrier or shuffle for others that never come."""


class _Parameter(ctypes.Structure):
    _fields_ = (("size", ctypes.c_int), ("pointer", ctypes.c_int), ("output", ctypes.c_int))


class _Launch(ctypes.Structure):
    _fields_ = (("blocks", ctypes.c_uint), ("threads", ctypes.c_uint), ("order", ctypes.c_int))


def missing() -> str | None:
    """Return why kernels cannot be run here, or None."""
    return None if shutil.which("g++") else "g++, which compiles kernels for the CPU, is missing"


class HostLaunch:
    """Launches kernels on NumPy arrays, the threads of each block in one ``order``.

    A kernel works on copies with margins of NaN around them, its outputs filled with NaN: what it
    reads and writes where it should not, or leaves unwritten, is seen. Not ``boxed``, it works on
    the arrays themselves.
    """

    def __init__(self, order: int = FORWARD, *, boxed: bool = True) -> None:
        self.order, self.boxed = order, boxed
        self.launched: list[str] = []

    def __call__(
        self, source: Source, name: str, blocks: int, threads: int, arguments: Sequence[Any]
    ) -> None:
        """Run kernel ``name``; TypeError where the arguments are not what it takes."""
        library = library_of(source.text)
        outputs = _checked(library, name, arguments)
        self.launched.append(name)
        boxes = [
            _Box(x, out) if isinstance(x, np.ndarray) and self.boxed else None
            for x, out in zip(arguments, outputs, strict=True)
        ]
        cells = [_cell(x, box) for x, box in zip(arguments, boxes, strict=True)]
        pointers = (ctypes.c_void_p * len(cells))(*(cell.ctypes.data for cell in cells))
        launch = _Launch(blocks, threads, self.order)
        if getattr(library, f"launch_{name}")(pointers, launch):
            msg = f"{name}: threads wait for others that never come"
            raise StuckError(msg)
        for i, box in enumerate(boxes):
            if box is not None:
                box.close(f"{name}, argument {i}")


def _cell(x: Any, box: _Box | None) -> np.ndarray[Any, Any]:
    """Return what the launch points to for argument ``x``: an address or the number itself."""
    if isinstance(x, np.ndarray):
        return np.asarray(np.uint64(x.ctypes.data if box is None else box.address))
    return np.asarray(x)


class _Box:
    """A copy of the memory of one array between two margins of NaN."""

    MARGIN = 4096

    def __init__(self, x: np.ndarray[Any, Any], output: bool) -> None:
        if output:
            x.fill(np.nan if x.dtype.kind in "fc" else True)
        self.output, (self.low, high) = output, np.lib.array_utils.byte_bounds(x)
        self.size = high - self.low
        self.bytes = np.full(self.size + 2 * self.MARGIN, 0xFF, np.uint8)
        self.inside = slice(self.MARGIN, self.MARGIN + self.size)
        self.bytes[self.inside] = np.frombuffer(ctypes.string_at(self.low, self.size), np.uint8)
        self.before = self.bytes.copy()
        self.address = self.bytes.ctypes.data + self.MARGIN + x.ctypes.data - self.low

    def close(self, where: str) -> None:
        """Bring what was written back; AssertionError for what should not have been written."""
        changed = self.bytes != self.before
        if self.output:
            changed[self.inside] = False
            inside = self.bytes[self.inside]
            ctypes.memmove(self.low, inside.ctypes.data, self.size)
        assert not changed.any(), f"{where}: written outside of what is its own"


def _checked(library: ctypes.CDLL, name: str, arguments: Sequence[Any]) -> list[bool]:
    """Return which arguments are outputs; TypeError unless all fit the kernel's parameters."""
    found = (_Parameter * 64)()
    parameters = found[: getattr(library, f"parameters_{name}")(found)]
    if len(parameters) != len(arguments):
        msg = f"{name} takes {len(parameters)} arguments, given {len(arguments)}"
        raise TypeError(msg)
    for i, (x, parameter) in enumerate(zip(arguments, parameters, strict=True)):
        pointer = isinstance(x, np.ndarray)
        null = parameter.pointer and isinstance(x, np.uint64) and int(x) == 0
        if not null and (pointer, x.itemsize) != (bool(parameter.pointer), parameter.size):
            what = "an array" if parameter.pointer else "a number"
            msg = f"{name}, argument {i}: {what} of {parameter.size} bytes, given {type(x)}"
            raise TypeError(f"{msg} of {x.itemsize}")
    return [bool(parameter.output) for parameter in parameters]


@functools.cache
def library_of(text: str) -> ctypes.CDLL:
    """Return the kernels of one source, compiled."""
    shim, scheduler = ((HERE / file).read_text() for file in ("shim.h", "scheduler.cpp"))
    link = _compiled(scheduler, shim)
    exports = "".join(f"CUSHIM_EXPORT({name})\n" for name in dict.fromkeys(KERNELS.findall(text)))
    code = f'#include "shim.h"\n{text}\n{exports}'
    return ctypes.CDLL(str(_compiled(code, shim, link)))


def _compiled(code: str, header: str, link: Path | None = None) -> Path:
    """Return the shared library of ``code``; one that was built before is used again."""
    folder = Path(tempfile.gettempdir()) / f"ssmcore-cushim-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    key = hashlib.sha256(f"{code}{header}{FLAGS}{link}".encode()).hexdigest()[:24]
    target = folder / f"lib{key}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            source, built = Path(work) / "code.cpp", Path(work) / "code.so"
            source.write_text(code)
            linked = () if link is None else (str(link), f"-Wl,-rpath,{folder}")
            command = ["g++", *FLAGS, *STRICT, f"-I{HERE}", str(source), *linked, "-o", str(built)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr)
            built.replace(target)
    return target

"""Compile CUDA C for a GPU without one: with NVRTC, as CuPy does, or with nvcc."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MISSING", "Resources", "compiler"]

OPTIONS = ("-std=c++17", "-arch=sm_90", "--ptxas-options=-v")
MISSING = "no CUDA compiler: install nvidia-cuda-nvrtc-cu12, cupy or nvcc"
REPORT = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)'.*?(?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


@dataclass(frozen=True)
class Resources:
    """What one kernel takes: registers a thread, and bytes of them spilled to memory."""

    registers: int
    spilled: int


def compiler() -> Callable[[str], dict[str, Resources]] | None:
    """Return text -> resources by kernel; None where nothing here compiles CUDA C.

    The compiler raises RuntimeError with its log for text that it does not accept, or warns of.
    """
    if _nvrtc() is not None:
        return _with_nvrtc
    return _with_nvcc if shutil.which("nvcc") else None


def _read(log: str) -> dict[str, Resources]:
    return {
        found["kernel"]: Resources(
            int(found["registers"]), int(found["stores"]) + int(found["loads"])
        )
        for found in REPORT.finditer(log)
    }


@functools.cache
def _nvrtc() -> ctypes.CDLL | None:
    """Return the library NVRTC as NVIDIA's wheels install it, or as the system has it."""
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    wheels = [str(x) for folder in folders for x in Path(folder).glob("*/lib/libnvrtc.so.*")]
    for name in [*sorted(wheels), "libnvrtc.so"]:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _with_nvrtc(text: str) -> dict[str, Resources]:
    library = _nvrtc()
    assert library is not None
    program = ctypes.c_void_p()
    source = ctypes.c_char_p(text.encode())
    library.nvrtcCreateProgram(ctypes.byref(program), source, b"kernel.cu", 0, None, None)
    options = (ctypes.c_char_p * len(OPTIONS))(*(option.encode() for option in OPTIONS))
    status = library.nvrtcCompileProgram(program, len(OPTIONS), options)
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return _accepted(status, log.value.decode())


def _with_nvcc(text: str) -> dict[str, Resources]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.cu"
        source.write_text(text)
        command = ["nvcc", *OPTIONS, "-cubin", str(source), "-o", str(source.with_suffix(".o"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return _accepted(done.returncode, done.stdout + done.stderr)


def _accepted(status: int, log: str) -> dict[str, Resources]:
    if status or "warning" in log:
        raise RuntimeError(log)
    return _read(log)

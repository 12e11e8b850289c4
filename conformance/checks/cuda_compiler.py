"""Compile CUDA C for a GPU without one: with NVRTC, as CuPy does, or with nvcc."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ssmcore_cuda import nvrtc

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
    if nvrtc.find() is not None:
        return _with_nvrtc
    return _with_nvcc if shutil.which("nvcc") else None


def _read(log: str) -> dict[str, Resources]:
    return {
        found["kernel"]: Resources(
            int(found["registers"]), int(found["stores"]) + int(found["loads"])
        )
        for found in REPORT.finditer(log)
    }


def _with_nvrtc(text: str) -> dict[str, Resources]:
    return _accepted(nvrtc.compiled(text, OPTIONS)[1])


def _with_nvcc(text: str) -> dict[str, Resources]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.cu"
        source.write_text(text)
        command = ["nvcc", *OPTIONS, "-cubin", str(source), "-o", str(source.with_suffix(".o"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return _accepted(done.stdout + done.stderr)


def _accepted(log: str) -> dict[str, Resources]:
    if "warning" in log:
        raise RuntimeError(log)
    return _read(log)

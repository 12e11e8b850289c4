"""CUDA C to PTX by NVRTC, NVIDIA's compiler as a library: no CUDA toolkit and no GPU is needed."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path

from ssmcore_cuda.source import Source

__all__ = ["CompileError", "compiled", "find", "ptx"]

NAMES = ("libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12")
INSTALL = "pip install nvidia-cuda-nvrtc-cu12, or the extra cuda12 or cuda13 of jax"


class CompileError(RuntimeError):
    """NVRTC is not there, or does not take a source."""


@functools.cache
def find() -> ctypes.CDLL | None:
    """Return NVRTC as NVIDIA's wheels install it, or as the system has it; None where it is not."""
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    wheels = [str(x) for folder in folders for x in Path(folder).glob("*/lib/libnvrtc.so.*")]
    for name in [*sorted(wheels), *NAMES]:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


@functools.cache
def ptx(source: Source, capability: int) -> str:
    """Return PTX for devices of compute capability ``capability`` (90 for 9.0) and newer ones.

    The newest up to it that NVRTC knows; CompileError where there is none, or no NVRTC.
    """
    known = [number for number in _architectures() if number <= capability]
    if not known:
        msg = f"NVRTC knows no devices as old as compute capability {capability / 10}"
        raise CompileError(msg)
    return compiled(source.text, ("-std=c++17", f"-arch=compute_{max(known)}"))[0]


def _architectures() -> list[int]:
    library, count = _library(), ctypes.c_int()
    _check(library.nvrtcGetNumSupportedArchs(ctypes.byref(count)), "asked for architectures")
    found = (ctypes.c_int * count.value)()
    _check(library.nvrtcGetSupportedArchs(found), "asked for architectures")
    return list(found)


def compiled(text: str, options: tuple[str, ...]) -> tuple[str, str]:
    """Return PTX, or "" where ``options`` name no virtual architecture, and the compiler's log."""
    library, program = _library(), ctypes.c_void_p()
    created = library.nvrtcCreateProgram(
        ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None
    )
    _check(created, "given a source")
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = library.nvrtcCompileProgram(program, len(options), given)
        log = _text(library, "ProgramLog", program)
        _check(status, log)
        return _text(library, "PTX", program), log
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _library() -> ctypes.CDLL:
    library = find()
    if library is None:
        msg = f"NVRTC is not installed: {INSTALL}"
        raise CompileError(msg)
    return library


def _text(library: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(max(1, size.value))
    getattr(library, f"nvrtcGet{what}")(program, text)
    return text.value.decode()


def _check(status: int, where: str) -> None:
    if status:
        msg = f"NVRTC failed with error {status}: {where}"
        raise CompileError(msg)

"""Compiles the Triton kernels for sm_90 as their launchers would, without a GPU: a line each.

A stand-in for the driver names the target; every launch is turned into a compilation with the
very arguments that it would run with, so that strides of 1, alignment and missing arguments are
specialised as on the device. What comes out is read with the tools of Triton's own wheel.
``python -m checks.triton_compiler`` compiles every case; ``... brief`` each kind of launch once,
and counts no instructions.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from ssmcore_torch._triton.cauchy import cauchy_sums, cauchy_sums_backward
from ssmcore_torch._triton.linear_scan import linear_scan, linear_scan_backward
from ssmcore_torch._triton.selective_scan import (
    EVERY,
    selective_scan,
    selective_scan_backward,
)
from ssmcore_torch._triton.selective_step import selective_step
from ssmcore_torch._triton.short_convolution import short_convolution, short_convolution_backward
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class Target:
    """Stands in for the driver of a GPU of compute capability 9.0."""

    def get_current_target(self) -> Any:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _: Any = None) -> int:
        return 0


compiled: list[tuple[Any, Any]] = []
_run = JITFunction.run


def _compile(self: Any, *arguments: Any, warmup: bool = True, **options: Any) -> Any:
    compiled.append((self, _run(self, *arguments, warmup=True, **options)))


def empty(dtype: str, *shape: int) -> Any:
    """Return an array of which only the form matters."""
    return torch.empty(shape, dtype=getattr(torch, dtype))


def scan(dtype: str, R: int = 8, L: int = 64, P: int = 2048, **options: Any) -> None:
    """Compile a linear scan and its gradient; ``constant`` and ``keep`` as asked for."""
    a = empty(dtype, R, 1 if options.pop("constant", False) else L, P)
    b, start = empty(dtype, R, L, P), empty(dtype, R, P)
    keep = torch.ones(R, L, dtype=torch.bool) if options.pop("keep", False) else None
    linear_scan(a, b, start, keep, **options)
    linear_scan_backward(a, b, b, start, keep, **options)


def selective(dtype: str, H: int, N: int, keep: bool = False, chunk: int | None = None) -> None:
    """Compile a selective scan, its step and its gradient."""
    u, A, B, D = (empty(dtype, *s) for s in ((2, 64, H), (H, N), (2, 64, N), (H,)))
    state = empty("float64" if dtype == "float64" else "float32", 2, H, N)
    kept = torch.ones(2, 64, dtype=torch.bool) if keep else None
    selective_scan(u, u, A, B, B, D, state, kept, checkpoint=True, chunk=chunk)
    marks = state[:, None].expand(2, 64 // EVERY, H, N).contiguous()
    selective_scan_backward(u, u, A, B, B, D, marks, u, state, kept, chunk=chunk)
    selective_step(u[:, 0], u[:, 0], A, B[:, 0], B[:, 0], D, state)


def short(dtype: str, taps: int) -> None:
    """Compile a short convolution and its gradient."""
    u, weight, bias = empty(dtype, 2, 64, 256), empty(dtype, taps, 256), empty(dtype, 256)
    state = empty(dtype, 2, taps - 1, 256)
    short_convolution(u, weight, bias, state)
    short_convolution_backward(u, weight, state, u, state)


def cauchy(dtype: str, S: int) -> None:
    """Compile Cauchy sums and their gradient."""
    z, x, v, g = (empty(dtype, *s) for s in ((65,), (4, 32), (4, 32, S), (4, 65, S)))
    cauchy_sums(z, z, x, v)
    cauchy_sums_backward(z, z, x, v, g)


CASES: dict[str, Callable[[], None]] = {
    "scan, float32": lambda: scan("float32"),
    "scan, float32, many lanes": lambda: scan("float32", R=64),
    "scan, float32, odd sizes, restarts": lambda: scan("float32", 3, 7, 5, keep=True),
    "scan, float32, constant, long": lambda: scan("float32", 1, 64, 64, constant=True, chunk=16),
    "scan, bfloat16": lambda: scan("bfloat16"),
    "scan, complex64, restarts": lambda: scan("complex64", keep=True),
    "selective, float32": lambda: selective("float32", 2048, 16),
    "selective, bfloat16, restarts": lambda: selective("bfloat16", 2048, 16, keep=True),
    "selective, float32, odd, long": lambda: selective("float32", 50, 5, chunk=16),
    "selective, float64": lambda: selective("float64", 64, 16),
    "selective, float32, 64 states": lambda: selective("float32", 64, 64),
    "short, float32": lambda: short("float32", 4),
    "short, bfloat16, 8 taps": lambda: short("bfloat16", 8),
    "short, float64, 8 taps": lambda: short("float64", 8),
    "cauchy, complex64": lambda: cauchy("complex64", 4),
    "cauchy, complex128, rank 2": lambda: cauchy("complex128", 9),
}


BRIEF = (
    "scan, float32, constant, long",
    "selective, float32, odd, long",
    "short, bfloat16, 8 taps",
    "cauchy, complex64",
)
"""Every kernel, the largest where its size depends on the case."""


def loops(code: list[tuple[int, str]]) -> list[int]:
    """Return the lengths of the loops of a program, outermost first: backward branches."""
    index = {address: position for position, (address, _) in enumerate(code)}
    found = set()
    for position, (address, text) in enumerate(code):
        jump = re.search(r"\bBRA\b.*0x([0-9a-f]+)", text)
        if jump and int(jump[1], 16) < address:
            found.add((index[int(jump[1], 16)], position))
    return sorted((end - begin + 1 for begin, end in found), reverse=True)


def inspected(binary: Any, *options: str) -> str:
    """Return what cuobjdump says of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        command = [str(TOOLS / "cuobjdump"), file.name, *options]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def resources(kernel: Any, binary: Any) -> dict[str, Any]:
    """Return the registers of a kernel, and the bytes of memory that it keeps some of them in."""
    usage = inspected(binary, "--dump-resource-usage")
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage)
    assert found, usage
    return {
        "kernel": f"{kernel.__module__.split('.')[-1]}.{kernel.__name__}",
        "registers": int(found[1]),
        "spills": int(found[2]) + int(found[3]),
    }


def instructions(binary: Any) -> dict[str, Any]:
    """Return the instructions of a kernel.

    An element is a lane at a step, with each of its states; ``per_element`` is of the loop over
    time, of the loop over groups of channels inside it where there is one.
    """
    code = [
        (int(found[1], 16), found[2])
        for found in re.finditer(
            r"/\*([0-9a-f]{4,5})\*/\s+(.*?);", inspected(binary, "--dump-sass")
        )
    ]
    names = binary.src.fn.arg_names
    sizes = {
        names[path[0]]: value for path, value in binary.src.constants.items() if len(path) == 1
    }
    elements = sizes["BLOCK"] * sizes.get("NB", 1) * sizes.get("T", 1) / 32
    rounds = loops(code)
    return {
        "instructions": len(code),
        "per_element": round(rounds[len(rounds) > 2] / elements, 1) if rounds else None,
    }


def main(brief: bool) -> None:
    driver.set_active(Target())
    JITFunction.run = _compile
    for case in BRIEF if brief else CASES:
        CASES[case]()
        seen = set()
        while compiled:
            kernel, binary = compiled.pop(0)
            if binary.hash not in seen:
                seen.add(binary.hash)
                found = resources(kernel, binary) | ({} if brief else instructions(binary))
                print(json.dumps({"case": case, **found}), flush=True)


if __name__ == "__main__":
    main(brief=sys.argv[1:] == ["brief"])

"""Triton's interpreter instead of a GPU; as a pytest plugin, with torch's operators wired to it.

``pytest -p checks.triton_interpreted ... --ssm-backend=torch`` runs any test so that
``torch.ops.ssmcore.*`` executes on the CPU what it executes on CUDA devices, and counts the
kernels. Imported before Triton: the interpreter must be asked for first.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import Any

import pytest

__all__ = ["LAUNCHED", "UNUSABLE", "interpret", "wire"]

UNUSABLE = 77
"""Exit code of pytest where the interpreter does not work with the NumPy at hand."""

LAUNCHED: Counter[str] = Counter()
"""How often each kernel was interpreted."""


def interpret() -> None:
    """Run kernels under the interpreter from now on; its patches stay for good.

    It replaces the language at every call of every function, which takes most of the time; here
    once a module.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    from triton.runtime import interpreter

    class Scope:
        def restore(self) -> None:
            pass

    patch, run, done = interpreter._patch_lang, interpreter.GridExecutor.__call__, set()

    def once(fn: Any) -> Scope:
        if id(fn.__globals__) not in done:
            done.add(id(fn.__globals__))
            patch(fn)
        return Scope()

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        LAUNCHED[f"{self.fn.__module__.split('.')[-1]}.{self.fn.__name__}"] += 1
        return run(self, *arguments, **options)

    interpreter._patch_lang = once
    interpreter.GridExecutor._restore_args_dev = lambda *_: None  # arguments are on the host
    interpreter.GridExecutor.__call__ = counted


def wire() -> None:
    """Let the operators of ssmcore_torch, not yet defined, run Triton's kernels on the CPU."""
    interpret()
    assert "ssmcore_torch._linear" not in sys.modules
    from ssmcore_torch import _ops

    _ops.KERNELS["cpu"] = "triton"


def pytest_configure() -> None:
    wire()
    from checks.triton_probe import trouble

    if reason := trouble():
        pytest.exit(f"Triton's interpreter does not run here: {reason}", UNUSABLE)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("kernels interpreted")
    for kernel, count in sorted(LAUNCHED.items()):
        terminalreporter.write_line(f"{count:6} {kernel}")

"""The Triton kernels: against the oracles, on a GPU or interpreted, and compiled for sm_90."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from checks.triton_cases import CASES

WAIT = 600
"""Seconds after which a worker hangs; on an idle core they take 3 to 10."""

KERNELS = 11
"""Kernels there are: 3 of linear scans, 3 of selective scans, 1 step, 2 and 2 of the others."""


def ready() -> None:
    """Skip the test, and say why, without torch or Triton."""
    pytest.importorskip("torch")
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")


def lines_of(worker: str, *arguments: str) -> list[dict[str, Any]]:
    """Return the lines of JSON that ``checks.worker`` prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"checks.{worker}", *arguments],
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        text=True,
        capture_output=True,
        check=False,
        timeout=WAIT,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("primitive", CASES)
def test_triton_kernel_agrees_with_the_oracle(primitive: str) -> None:
    """Every result of every case within the tolerance computed for it."""
    ready()
    lines = lines_of("triton_worker", primitive)
    if "unusable" in lines[0]:
        pytest.skip(f"Triton's interpreter does not run here: {lines[0]['unusable']}")
    assert [line["case"] for line in lines] == list(CASES[primitive])
    wrong = []
    for line in lines:
        for name, result in line["results"].items():
            text = f"{line['case']}: {name} {result['error']:.1e} of {result['tolerance']:.1e}"
            print(text)
            if not result["error"] <= result["tolerance"]:
                wrong.append(text)
    assert not wrong


def test_triton_kernels_compile_for_sm_90_without_spills() -> None:
    """Every kernel as its launcher asks for it; prints registers, and instructions per element."""
    ready()
    lines = lines_of("triton_compiler")
    for line in lines:
        print(line)
    assert len({line["kernel"] for line in lines}) == KERNELS
    assert not [line for line in lines if line["spills"]]

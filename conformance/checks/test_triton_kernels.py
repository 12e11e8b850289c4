"""The Triton kernels: against the oracles, on a GPU or interpreted, and compiled for sm_90."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checks import fresh
from checks.triton_cases import CASES
from checks.triton_interpreted import UNUSABLE

WAIT = 1800
"""Seconds after which a worker hangs; on an idle core they take 5 to 30."""

KERNELS = 11
"""Kernels there are: 3 of linear scans, 3 of selective scans, 1 step, 2 and 2 of the others."""

PRIMITIVES = ("linear_scan", "selective_scan", "short_convolution", "dplr_kernel")

WIRED = f"""
wired_triton and not (one_graph and dplr_kernel) and not (tangents and selective_scan)
or (gradient or new_axis) and ({" or ".join(f"{name}]" for name in PRIMITIVES)})
"""
"""Of the tests of the operators, those that the suite runs interpreted; CONTRIBUTING.md has all."""


def ready() -> None:
    """Skip the test, and say why, without torch or Triton."""
    pytest.importorskip("torch")
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")


def output_of(*command: str) -> str:
    """Return what a Python process prints."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        text=True,
        capture_output=True,
        check=False,
        timeout=WAIT,
    )
    if done.returncode == UNUSABLE:
        pytest.skip(done.stderr.strip() or done.stdout.strip())
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    return done.stdout


def lines_of(*command: str) -> list[dict[str, Any]]:
    """Return the lines of JSON that a Python process prints."""
    return [json.loads(x) for x in output_of(*command).splitlines() if x.startswith("{")]


def test_triton_kernels_agree_with_the_oracles() -> None:
    """Every result of every case within the tolerance computed for it."""
    ready()
    lines = lines_of("checks.triton_worker")
    if "unusable" in lines[0]:
        pytest.skip(f"Triton's interpreter does not run here: {lines[0]['unusable']}")
    expected = [f"{primitive}: {case}" for primitive, cases in CASES.items() for case in cases]
    assert [line["case"] for line in lines] == expected
    wrong = []
    for line in lines:
        for name, result in line["results"].items():
            text = f"{line['case']}: {name} {result['error']:.1e} of {result['tolerance']:.1e}"
            print(text)
            if not result["error"] <= result["tolerance"]:
                wrong.append(text)
    assert not wrong


def test_operators_run_triton_kernels() -> None:
    """Gradients, vmap, torch.compile, fake tensors, AMP and export of what CUDA tensors run."""
    ready()
    folder = Path(__file__).parent
    names = ("test_adjoints.py", "test_transformations.py")
    suite = [folder.parent / "ssmcore_conformance" / name for name in names]
    files = map(str, (folder / "wired_triton.py", *suite))
    options = ("-p", "checks.triton_interpreted", "--ssm-backend=torch", "-q")
    print(output_of("pytest", *files, *options, "-k", " ".join(WIRED.split())))


@pytest.mark.parametrize(
    ("version", "usable"), [("3.2.0", False), ("3.3.0", True), ("3.10.0rc1", True), ("git", False)]
)
def test_only_versions_that_take_the_kernels_are_used(
    version: str, usable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready()
    ops = importlib.import_module("ssmcore_torch._ops")
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    assert ops._usable("triton") is usable
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert not ops._usable("triton")


def test_tensors_on_the_cpu_do_not_import_triton() -> None:
    """But its kernels are there for those on CUDA devices."""
    ready()
    code = """
import sys, torch, ssmcore_torch as ssm
ssm.S6(4)(torch.ones(3, 4)).sum().backward()
from ssmcore_torch import _ops
print("triton" in sys.modules, _ops.KERNELS["cuda"], hasattr(torch.ops.ssmcore, "linear_scan"))
"""
    assert fresh.output(code) == "False triton True"


def test_triton_kernels_compile_for_sm_90_without_spills() -> None:
    """Every kernel, each kind of launch once, as its launcher asks for it; prints registers."""
    ready()
    lines = lines_of("checks.triton_compiler", "brief")
    for line in lines:
        print(line)
    assert len({line["kernel"] for line in lines}) == KERNELS
    assert not [line for line in lines if line["spills"]]

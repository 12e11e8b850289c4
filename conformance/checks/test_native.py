"""Native kernels where numba is installed, the references where it is not or is not wanted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from checks import fresh

pytest.importorskip("numba")

WHICH = """
from ssmcore import backend, doctor
from ssmcore.primitives import REFERENCES
for name in ("numpy", "torch"):
    for primitive in REFERENCES:
        print(name, primitive, doctor.implementation(backend.load(name), primitive))
"""
SCANS = """
import numpy as np, ssmcore as ssm
a, b = np.full((300, 5), 0.9), np.ones((300, 5))
print(repr(ssm.linear_scan(a, b)[-1, 0].item()))
"""


def test_numba_runs_the_scans_of_numpy_and_torch() -> None:
    lines = fresh.output(WHICH).splitlines()
    native = {tuple(line.split()[:2]) for line in lines if "native:" in line}
    scans = ("linear_scan", "diagonal_scan", "selective_scan")
    found = {(name, scan) for name in ("numpy", "torch") for scan in scans}
    assert native == found | {("torch", "short_convolution")}


def test_without_native_kernels_the_references_run() -> None:
    found = fresh.output(WHICH, SSMCORE_NATIVE="0").splitlines()
    assert found
    assert all(line.endswith("reference") for line in found)


def test_a_value_that_means_nothing_is_refused() -> None:
    said = fresh.failure(SCANS, SSMCORE_NATIVE="yes")
    assert "SSMCORE_NATIVE" in said
    assert "'yes'" in said


def test_both_ways_agree() -> None:
    value = float(fresh.output(SCANS))
    assert value == pytest.approx(float(fresh.output(SCANS, SSMCORE_NATIVE="0")), rel=1e-14)
    assert value == pytest.approx((1 - 0.9**300) / 0.1, rel=1e-14)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_the_suite_passes_on_the_references(backend: str) -> None:
    tests = ("linear_scan", "diagonal_scan", "selective_scan")
    modules = [f"ssmcore_conformance.test_{name}" for name in tests]
    command = ["-m", "pytest", "--pyargs", *modules, "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, *command, "--ssm-profile=dev", f"--ssm-backend={backend}"],
        env=os.environ | {"SSMCORE_NATIVE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]

"""The command line: what it prints, its exit codes, the doctor."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from ssmcore_numpy import NumpyBackend
from typer.testing import CliRunner

from ssmcore import __version__, backend, doctor, verify
from ssmcore.cli import app
from ssmcore.primitives import REFERENCES
from ssmcore.verify import table

RUNNER = CliRunner()
QUICK = ("--backends", "numpy", "--length", "32")


def run(*arguments: str) -> Any:
    return RUNNER.invoke(app, list(arguments))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m ssmcore`` in a process of its own."""
    line = [sys.executable, "-m", "ssmcore", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)


def wrong_sign(*args: Any, **kwargs: Any) -> Any:
    y, state = REFERENCES["diagonal_scan"](*args, **kwargs)
    return -y, state


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumpyBackend, "primitives", lambda self: {"diagonal_scan": wrong_sign})


# --------------------------------------------------------------------------------------- verify


def test_short_run_prints_one_table_and_one_line() -> None:
    found = run("verify", *QUICK)
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    rows = [line.split() for line in lines if line.split()[:1] and line.split()[-1] == "ok"]
    assert [row[:3] for row in rows] == [
        [model, "numpy", dtype] for model in verify.MODELS for dtype in ("float32", "float64")
    ]
    assert " 0 failed, worst " in lines[-1]
    assert "\x1b" not in found.stdout  # plain where it is not a terminal
    assert found.stderr == ""


def test_a_planted_fault_gives_1_and_is_named(fault: None) -> None:
    found = run("verify", "S5", "--dtype", "float64", "--modes", "recurrence,scan", *QUICK)
    assert found.exit_code == 1
    [line] = [x for x in found.stdout.splitlines() if x.startswith("FAILED S5 numpy float64 scan")]
    for part in ("oracle: at batch ", "time ", "channel ", "got ", "oracle ", "tolerance "):
        assert part in line
    words = line.split()
    got = float(words[words.index("got") + 1].rstrip(","))
    expected = float(words[-5].rstrip(";"))
    assert got != expected  # both values


def test_many_failures_are_cut_short(fault: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "SHOWN", 2)
    found = run("verify", "S5", "LRU", *QUICK)
    assert found.exit_code == 1
    assert sum(line.startswith("FAILED") for line in found.stdout.splitlines()) == 2
    assert "more; --json FILE holds them all" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("S9",), "did you mean"),
        (("--backends", "numpyy"), "did you mean 'numpy'"),
        (("--modes", "scan,convolutoin"), "did you mean 'convolution'"),
        (("--dtype", "float16"), "dtype is 'float16'"),
        (("--input", "absent.csv"), "there is no such file"),
        (("--length", "0"), "length is 0"),
        (("--length", "1"), "the input is constant over 1 of 8192 samples"),
        (("--seed", "-1"), "seed is -1"),
        (("--json", "absent/report.json"), "cannot write a file there"),
        (("--json", f"{'r' * 300}.json"), "cannot write a file there"),
        (("--input", f"{'r' * 300}.csv"), "there is no such file"),
        (("S4", "--d-state", "3"), "d_state is 3"),
    ],
)
def test_bad_input_gives_2_and_one_line(arguments: tuple[str, ...], message: str) -> None:
    found = run("verify", "--backends", "numpy", *arguments)
    assert found.exit_code == 2
    assert found.stdout == ""
    [line] = found.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="there is no /proc here")
@pytest.mark.parametrize("name", ["verify", "doctor"])
def test_a_folder_that_takes_no_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc says that it can be written to, and cannot: found out before the work."""
    monkeypatch.setattr(verify, "run", None)
    monkeypatch.setattr(doctor, "run", None)
    found = run(name, "--json", "/proc/x.json")
    assert found.exit_code == 2, found.exception
    [line] = found.stderr.splitlines()
    assert line.startswith("error: '/proc/x.json': cannot write a file there (No such file")


def test_a_disk_that_fills_up_gives_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    found = run("verify", "LRU", *QUICK, "--json", str(tmp_path / "report.json"))
    assert found.exit_code == 2
    [line] = found.stderr.splitlines()
    assert "cannot write a file there (No space left on device)" in line
    assert list(tmp_path.iterdir()) == []


def test_an_absent_library_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = type("Absent", (NumpyBackend,), {"name": "absent", "library": "absent_library"})()
    monkeypatch.setitem(backend._registered, "absent", absent)
    found = run("verify", "--backends", "absent")
    assert found.exit_code == 2
    assert "install it with: pip install numpy" in found.stderr


def _wav(path: Path, x: np.ndarray[Any, Any]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((x * 30000).astype("<i2").tobytes())


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".wav"])
def test_a_file_of_the_user(tmp_path: Path, suffix: str) -> None:
    x = np.sin(0.1 * np.arange(48.0))
    path = tmp_path / f"tone{suffix}"
    if suffix == ".wav":
        _wav(path, x)
    elif suffix == ".csv":
        path.write_text("\n".join(map(str, x)), encoding="utf-8")
    else:
        np.save(path, x)
    report = tmp_path / "report.json"
    found = run("verify", "LRU", "--backends", "numpy", "--input", str(path), "--json", str(report))
    assert found.exit_code == 0, found.output
    assert f"input: tone{suffix}, 2 x 48 steps x 8 channels" in found.stdout
    settings = json.loads(report.read_text(encoding="utf-8"))["settings"]
    assert (settings["input"], settings["length"]) == (f"tone{suffix}", 48)


def test_a_file_with_more_channels_than_the_models(tmp_path: Path) -> None:
    path, report = tmp_path / "wide.npy", tmp_path / "report.json"
    np.save(path, np.random.default_rng(0).standard_normal((32, 5)))
    words = ("verify", "LRU", "--backends", "numpy", "--input", str(path), "--json", str(report))
    found = run(*words, "--d-model", "3")
    assert "input: wide.npy (the first 3 of its 5 channels), 2 x 32 steps x 3 ch" in found.stdout
    assert json.loads(report.read_text(encoding="utf-8"))["settings"]["input_channels"] == 5
    assert "input: wide.npy, 2 x 32 steps x 5 channels" in run(*words, "--d-model", "5").stdout


def test_torch_and_jax_in_a_process_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    found = command(
        *("verify", "LRU", "--backends", "torch", "--backends", "jax", "--dtype", "float64"),
        *("--modes", "recurrence", "--length", "16", "--json", str(path)),
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "jax: 64-bit types were off and are switched on" in found.stdout
    torch, jax = json.loads(path.read_text(encoding="utf-8"))["cases"]
    assert torch["gradients"] is None
    assert jax["gradients_from"] == "torch"
    print(jax["gradients"])
    assert 0 <= jax["gradients"]["error"] <= jax["gradients"]["tolerance"]
    assert 0 <= jax["eigenvalues_across"] <= jax["eigenvalues"]["tolerance"]


@pytest.mark.parametrize("width", [50, 80, 100, 160])
def test_the_table_fits_its_terminal(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    report = verify.run(["S5", "RGLRU"], ["numpy"], length=16)
    report.cases[0].seconds = 12345.6
    report.cases[0].modes[0] = verify.ModeResult("scan", verify.Comparison(9e-9, 1e-9), 98765.4)
    table.show(report, Console(width=width, force_terminal=True, color_system=None))
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.strip().startswith(("S5", "RGLRU"))]
    assert len(rows) == 4
    assert all(len(line) <= width for line in rows)
    assert all("…" not in line and line.rstrip().endswith("ok") for line in rows)
    assert ("98765" in rows[0]) == (width >= 80)


# --------------------------------------------------------------------------------------- doctor


def test_doctor_executes_every_primitive() -> None:
    report = doctor.run(["numpy", "torch", "array_api_strict"])
    assert report.passed
    for found in report.backends:
        assert (found.status, found.devices[0]) == ("ok", "cpu")
        ran = [(p.primitive, p.dtype) for p in found.primitives]
        assert ran == [(name, dtype) for name in REFERENCES for dtype in ("float32", "float64")]
        assert all(p.implementation for p in found.primitives)


def test_doctor_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "doctor.json"
    found = command("doctor", "--json", str(path))
    assert found.returncode == 0, found.stdout + found.stderr
    result = json.loads(path.read_text(encoding="utf-8"))
    by_name = {b["name"]: b for b in result["backends"]}
    runs = {p["primitive"]: p["implementation"] for p in by_name["jax"]["primitives"]}
    native = {name: kind for name, kind in runs.items() if kind != "reference, compiled"}
    assert native == {
        "linear_scan": "native: ssmcore_jax._scan.linear_scan",
        "diagonal_scan": "native: ssmcore_jax._diagonal.diagonal_scan",
        "selective_scan": "native: ssmcore_jax._selective.selective_scan",
    }
    assert len(by_name["jax"]["primitives"]) == 2 * len(REFERENCES)
    absent = [b for b in result["backends"] if b["status"] == "absent"]
    assert all("pip install" in b["detail"] for b in absent)
    assert "0 failed; broken backends: none" in found.stdout.splitlines()[-1]


def test_doctor_finds_a_wrong_native_primitive(fault: None, tmp_path: Path) -> None:
    report = doctor.run(["numpy"])
    assert not report.passed
    assert (report.backends[0].status, report.backends[0].detail) == ("broken", "diagonal_scan")
    bad = [p for p in report.backends[0].primitives if not p.passed]
    assert [p.primitive for p in bad] == ["diagonal_scan"] * 2
    assert bad[0].implementation == f"native: {wrong_sign.__module__}.wrong_sign"


def test_doctor_exits_with_1(monkeypatch: pytest.MonkeyPatch, fault: None) -> None:
    monkeypatch.setattr(backend, "names", lambda: ["numpy"])
    found = run("doctor")
    assert found.exit_code == 1
    assert "FAILED numpy diagonal_scan float32 (native: " in found.stdout
    assert found.stdout.splitlines()[-1].endswith("broken backends: numpy")


def _spoilt(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> doctor.BackendResult:
    owner = type("Spoilt", (NumpyBackend,), {"name": "spoilt", **changes})()
    monkeypatch.setitem(backend._registered, "spoilt", owner)
    [result] = doctor.run(["spoilt"]).backends
    return result


def _fail(*_: Any, **__: Any) -> Any:
    raise RuntimeError("driver too old")


def test_doctor_names_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _spoilt(monkeypatch, devices=_fail)
    assert (found.status, found.detail) == ("no device", "RuntimeError: driver too old")
    found = _spoilt(monkeypatch, devices=lambda self: [])
    assert (found.status, found.detail) == ("no device", "no device answers")
    found = _spoilt(monkeypatch, version=_fail)
    assert (found.status, found.detail) == ("broken", "RuntimeError: driver too old")
    found = _spoilt(monkeypatch, library="absent_library")
    assert (found.status, found.detail) == ("absent", "pip install numpy")
    found = _spoilt(monkeypatch, has_float64=lambda self: False)
    assert {p.dtype for p in found.primitives} == {"float32"}
    monkeypatch.setattr(NumpyBackend, "primitives", lambda self: {"dplr_kernel": _fail})
    [found] = doctor.run(["numpy"]).backends
    assert (found.status, found.detail) == ("broken", "dplr_kernel")
    assert found.primitives[-1].problem == "RuntimeError: driver too old"


def test_doctor_finds_a_wrong_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = {"causal_convolution": lambda u, k: REFERENCES["causal_convolution"](u, k).astype("f8")}
    monkeypatch.setattr(NumpyBackend, "primitives", lambda self: wide)
    [result] = doctor.run(["numpy"]).backends
    assert [p.problem for p in result.primitives if not p.passed] == [
        "TypeError: returned float64 (13, 3), not float32 (13, 3)"
    ]


# ------------------------------------------------------------------------------------- the rest


def test_version_and_help() -> None:
    assert run("--version").stdout == f"ssmcore {__version__}\n"
    for arguments, part in (
        (("--help",), "doctor"),
        (("verify", "--help"), "ssmcore verify S5 LRU"),
        (("doctor", "-h"), "ssmcore doctor --json"),
    ):
        found = run(*arguments)
        assert found.exit_code == 0
        assert part in found.stdout


def test_importing_the_library_loads_no_command_line() -> None:
    code = "import sys, ssmcore; print({'typer', 'rich', 'ssmcore.cli'} & sys.modules.keys())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "set()\n"

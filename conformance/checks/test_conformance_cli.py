"""The suite as a command: from any directory, for a third-party backend, and as the guide says."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from checks import faults, fresh

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = Path(__file__).parent / "example_backend"
GUIDE = (ROOT / "docs" / "writing-a-backend.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example backend, as pip installs it."""
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--target", str(target))
    done = subprocess.run(
        [*pip, *options, str(EXAMPLE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_help_says_what_it_does(tmp_path: Path) -> None:
    done = faults.command("-m", "ssmcore_conformance", "--help", where=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in (
        "--backend",
        "--profile",
        "--select",
        "--report",
        "--json",
        "--ledger",
        "Exit code",
    ):
        assert word in done.stdout
    assert "linear_scan" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--backend numpi", "did you mean 'numpy'"),
        ("--backend=", "'' names no backend"),
        ("--backend ,", "',' names no backend"),
        ("--profile night", "did you mean 'nightly'"),
        ("--select linear", "did you mean 'linear_scan'"),
        ("--report absent/out.html", "cannot write a file there"),
        (f"--report {'r' * 300}.html", "cannot write a file there"),
        ("--report out.txt", "ends in '.txt'; expected .html or .json"),
        ("--json out.html", "expected a name that ends in .json"),
        ("--ledger numpy.toml", "expected a ledger in TOML"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(
    tmp_path: Path, words: str, message: str
) -> None:
    done = faults.command("-m", "ssmcore_conformance", *words.split(), where=tmp_path)
    assert done.returncode in (2, 4)
    assert message in done.stderr
    assert "collected" not in done.stdout
    assert list(tmp_path.iterdir()) == []


DIES = """
def fault(a, b, initial, *, reset, reverse):
    if b.shape[-2] == 7:
        __import__("os")._exit(0)
    return reference(a, b, initial, reset=reset, reverse=reverse)
"""


@pytest.mark.parametrize("options", [[], ["-n", "1"]])
def test_a_process_that_dies_has_not_passed(options: list[str], tmp_path: Path) -> None:
    for name in ("out.json", "out.html"):
        (tmp_path / name).write_text("passed, the last time")
    words = ("--backend=numpy", "--select=linear_scan", "--json=out.json", "--report=out.html")
    done = faults.run(*words, "--", "-k", "test_value", *options, where=tmp_path, fault=DIES)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "test_linear_scan.py::test_value[numpy-7]" in done.stdout + done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert not report["passed"]
    page = (tmp_path / "out.html").read_text()
    if options:  # the process that dies is not the one that reports
        failed = [row["test"] for row in report["tests"] if row["outcome"] == "failed"]
        assert failed == ["test_linear_scan.py::test_value[numpy-7]"]
        assert report["exit_code"] == 1
        assert report["counts"]["passed"] > 5
        assert "did not end" not in page
    else:
        assert "exit code 0 in test_linear_scan.py" in done.stderr
        assert report["exit_code"] is None
        assert "The run did not end" in page


def test_without_its_extra_the_command_says_what_to_install(tmp_path: Path) -> None:
    absent = fresh.WITHOUT.format(libraries=("pytest", "mpmath"))
    run = "\nimport runpy; runpy.run_module('ssmcore_conformance', run_name='__main__')"
    line = fresh.failure(absent + run)
    assert line.startswith("error: the suite needs pytest, mpmath; ")
    assert 'pip install "ssmcore[conformance]"' in line


def test_the_class_of_the_guide_is_a_whole_backend(installed: Path, tmp_path: Path) -> None:
    """Typed in as it stands, with the instance below it, and nothing else."""
    package = shutil.copytree(installed, tmp_path / "typed") / "ssmcore_example"
    whole, instance, *_ = blocks("py")
    (package / "__init__.py").write_text(whole + instance)
    words = ("--backend=example", "--select=linear_scan,powers,layers", "--", "-k", "LRU or scan")
    done = faults.run(*words, where=tmp_path, path=tmp_path / "typed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "example unknown" in done.stdout  # the version of what is no distribution


@pytest.mark.parametrize("line", "".join(blocks("bash")).splitlines())
def test_the_commands_of_the_guide_run(line: str, installed: Path, tmp_path: Path) -> None:
    program, *words = shlex.split(line)
    if words[:3] == ["-m", "pip", "install"]:
        assert (ROOT / words[-1]) == EXAMPLE  # what ``installed`` has done, elsewhere
        return
    words = ["-m", "ssmcore", *words] if program == "ssmcore" else words
    done = faults.command(*words, path=installed, where=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "example" in done.stdout
    if "--json" in words:
        rows = json.loads((tmp_path / "out.json").read_text())["tests"]
        assert {row["backend"] for row in rows} == {"example"}
        assert {row["subject"] for row in rows} == {"linear_scan", "short_convolution"}
        assert (tmp_path / "out.html").read_text().startswith("<!doctype html>")


def test_the_ledger_of_a_backend_comes_with_it(installed: Path, tmp_path: Path) -> None:
    words = ("--backend=example", "--select=layers", "--json=out.json", "--", "-k", "half")
    done = faults.run(*words, where=tmp_path, path=installed)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads((tmp_path / "out.json").read_text())["tests"]
    assert row["outcome"] == "xfailed"
    assert "no 16-bit" in row["reason"]


def test_what_no_backend_is_fit_for_is_left_out_with_a_reason(tmp_path: Path) -> None:
    words = ("--backend=numpy", "--select=options", "--json=out.json", "--", "-k", "gradient_cap")
    done = faults.run(*words, where=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["tests"]
    skipped = [row for row in rows if row["outcome"] == "skipped"]
    assert skipped
    for row in skipped:
        assert row["reason"] == "no selected backend has automatic differentiation"
        assert row["backend"] == ""


def collected(profile: str, where: Path) -> set[str]:
    words = ("--backend=jax", f"--profile={profile}", "--select=linear_scan", "--", "--co", "-q")
    done = faults.command("-m", "ssmcore_conformance", *words, where=where)
    return set(re.findall(r"test_linear_scan\.py::(\S+)", done.stdout))


def test_nightly_leaves_no_test_out_on_jax(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    few, every = collected("ci", tmp_path), collected("nightly", tmp_path)
    assert every - few == {"test_chunks_carry_the_state[jax]"}


OWN = """
from ssmcore import backend, doctor
print(doctor.implementation(backend.load("example"), "short_convolution"))
print(doctor.implementation(backend.load("example"), "linear_scan"))
"""


def test_the_own_primitive_is_the_one_that_runs(installed: Path, tmp_path: Path) -> None:
    done = faults.command("-c", OWN, path=installed, where=tmp_path)
    own, other = done.stdout.splitlines()
    assert own.startswith("native: ssmcore_example")
    assert other.startswith("reference")


def test_the_guide_shows_the_files_of_the_example() -> None:
    code = (EXAMPLE / "ssmcore_example" / "__init__.py").read_text()
    assert len(blocks("py")) == 4
    for block in blocks("py"):
        assert block in code
    project, ledger = map(tomllib.loads, blocks("toml"))
    whole = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]
    assert project["project"]["entry-points"] == whole
    assert ledger == tomllib.loads((EXAMPLE / "ssmcore_example" / "example.toml").read_text())

"""The ledger of known failures: what it excuses, and that it cannot say too much."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checks import faults
from ssmcore_conformance import ledger
from ssmcore_conformance.ledger import Entry

from ssmcore.errors import SSMError

REASON, LINK = "seven is unlucky", "https://example.org/7"
SEVEN = "test_linear_scan.py::test_value[numpy-7]"
FEW = ("--backend=numpy", "--select=linear_scan", "--", "-k", "value and 7 or errors")


def written(folder: Path, *tests: str, name: str = "numpy.toml") -> str:
    entries = [
        f"[[failure]]\ntest = {json.dumps(test)}\nreason = {json.dumps(REASON)}\n"
        f"link = {json.dumps(LINK)}\n"
        for test in tests
    ]
    (folder / name).write_text("\n".join(entries))
    return f"--ledger={name}"


def test_a_known_failure_is_excused_with_its_reason(tmp_path: Path) -> None:
    book = written(tmp_path, SEVEN)
    done = faults.run(book, "--json=out.json", *FEW, where=tmp_path, fault=faults.WRONG_VALUE)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["counts"]["xfailed"] == 1
    (row,) = [row for row in report["tests"] if row["outcome"] == "xfailed"]
    assert row["test"] == SEVEN
    assert REASON in row["reason"]
    assert LINK in row["reason"]


def test_without_the_entry_the_failure_fails_the_run(tmp_path: Path) -> None:
    done = faults.run(*FEW, where=tmp_path, fault=faults.WRONG_VALUE)
    assert done.returncode == 1
    assert "1 failed" in done.stdout


def test_an_entry_whose_test_passes_fails_the_run(tmp_path: Path) -> None:
    done = faults.run(written(tmp_path, SEVEN), *FEW, where=tmp_path)
    assert done.returncode == 1, done.stdout
    assert f"numpy.toml: {SEVEN}: {REASON}" in done.stdout
    assert "the test passes; remove the entry" in done.stdout


@pytest.mark.parametrize("processes", [(), ("-n", "2")])
def test_an_entry_that_matches_nothing_fails_the_run(
    tmp_path: Path, processes: tuple[str, ...]
) -> None:
    """Though ``-k`` leaves out what it may have meant."""
    book = written(tmp_path, "test_linear_scan.py::test_value[numpy-8]")
    done = faults.run(book, *FEW, *processes, where=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "matches no test of test_linear_scan.py; correct or remove the entry" in done.stdout
    assert "snippet to paste" not in done.stdout
    assert "1 failed" in done.stdout


def test_entries_of_what_is_not_run_are_let_be(tmp_path: Path) -> None:
    """Another module."""
    book = written(tmp_path, "test_powers.py::test_nothing[numpy]")
    done = faults.run(book, *FEW, where=tmp_path)
    assert done.returncode == 0, done.stdout


def test_a_ledger_of_a_backend_that_is_not_tested_is_refused(tmp_path: Path) -> None:
    book = written(tmp_path, "test_linear_scan.py::test_nothing", name="array_api_strict.toml")
    done = faults.run(book, *FEW, where=tmp_path)
    assert done.returncode == 4, done.stdout
    assert "named after 'array_api_strict'; the backends tested are ['numpy']" in done.stderr


def test_an_entry_whose_test_is_skipped_fails_the_run(tmp_path: Path) -> None:
    """As nobody could tell when it is stale."""
    book = written(
        tmp_path,
        "test_layers.py::test_half_precision_activations[array_api_strict]",
        name="array_api_strict.toml",
    )
    words = ("--backend=array_api_strict", "--select=layers", "--", "-k", "half")
    done = faults.run(book, *words, where=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "the test is skipped; correct or remove the entry" in done.stdout


def test_a_test_asked_for_by_name_does_not_condemn_other_entries(tmp_path: Path) -> None:
    written(tmp_path, "test_linear_scan.py::test_nothing")
    name = "ssmcore_conformance.test_linear_scan::test_mixed_libraries"
    options = ("--ssm-backend=numpy", "--ssm-ledger=numpy.toml", "-pno:cacheprovider")
    done = faults.command("-m", "pytest", "--pyargs", name, *options, where=tmp_path)
    assert done.returncode == 0, done.stdout


def entry(test: str) -> Entry:
    return Entry("numpy.toml", "numpy", test, REASON, LINK)


def test_brackets_are_letters_and_stars_are_not() -> None:
    assert entry(SEVEN).matches(SEVEN, "numpy")
    assert entry("test_linear_scan.py::test_value[[]numpy-7]").matches(SEVEN, "numpy") is False
    assert entry("test_linear_scan.py::test_value*").matches(SEVEN, "numpy")
    assert entry("test_linear_scan.py::test_value[numpy-?]").matches(SEVEN, "numpy")
    assert not entry(SEVEN).matches("test_linear_scan.py::test_valuen", "numpy")
    assert not entry(SEVEN).matches(SEVEN, "torch")
    assert entry("test_gradients.py::*").matches("test_gradients.py::test_x[S4]", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[failure]\n", "expected a ledger in TOML"),
        ("[failure]\ntest = 'x'\n", r"expected \[\[failure\]\] tables only"),
        ("note = 'x'\n", r"holds \['note'\]; expected"),
        ("[[failure]]\ntest = 'test_powers.py::x'\nlink = 'x'\n", "failure 1 is .*reason"),
        ("[[failure]]\ntest = 'test_powers.py::x'\nlink = 'x'\nreason = ' '\n", "failure 1 is"),
        ("[[failure]]\ntest = 'test_value'\nlink = 'x'\nreason = 'y'\n", "test is 'test_value'"),
        ("[[failure]]\ntest = 'test_power.py::x'\nlink = 'x'\nreason = 'y'\n", "test_powers.py"),
    ],
)
def test_what_is_no_ledger_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "numpy.toml"
    path.write_text(content)
    with pytest.raises(SSMError, match=message):
        ledger.read(path)


def test_a_ledger_is_named_after_its_backend(tmp_path: Path) -> None:
    path = tmp_path / "numpyy.toml"
    path.write_text("")
    with pytest.raises(SSMError, match="did you mean 'numpy'"):
        ledger.read(path)
    with pytest.raises(SSMError, match=r"numpy\.toml.*expected a ledger"):
        ledger.read(tmp_path / "numpy.toml")


def test_every_shipped_ledger_can_be_read() -> None:
    for path in ledger.SHIPPED.glob("*"):
        assert ledger.read(path), f"{path}: an empty ledger is not needed"

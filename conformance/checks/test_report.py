"""Reports of the conformance suite: complete, true, readable, and written wholly or not at all."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import faults
from ssmcore_conformance import report as reporting
from ssmcore_conformance.report_html import page

from ssmcore import backend
from ssmcore.errors import SSMError

SELECT = ("--profile=ci", "--select=linear_scan", "--json=out.json", "--report=out.html")
BOTH = "--backend=numpy,array_api_strict"


class Run:
    """A run with a planted fault, in two processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        words = (BOTH, *SELECT, "--", "-n", "2")
        self.done = faults.run(*words, where=folder, fault=faults.WRONG_VALUE)
        self.json: dict[str, Any] = json.loads((folder / "out.json").read_text())
        self.html = (folder / "out.html").read_text()

    def rows(self, outcome: str) -> list[dict[str, Any]]:
        return [row for row in self.json["tests"] if row["outcome"] == outcome]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("faulty"))


def test_two_processes_tell_what_one_tells(faulty: Run, tmp_path: Path) -> None:
    alone = faults.run(BOTH, *SELECT, where=tmp_path, fault=faults.WRONG_VALUE)
    assert alone.returncode == faulty.done.returncode == 1
    one = json.loads((tmp_path / "out.json").read_text())
    two = faulty.json
    assert len(one["tests"]) > 50
    for a, b in zip(one["tests"], two["tests"], strict=True):
        first = [row["reason"].partition("\n")[0] for row in (a, b)]  # hypothesis explains below
        assert first[0] == first[1]
        keys = a.keys() - {"seconds", "reason"}
        assert {key: a[key] for key in keys} == {key: b[key] for key in keys}
    assert one["counts"] == two["counts"]
    assert one["environment"] == two["environment"]


def test_figures_are_those_of_the_run(faulty: Run) -> None:
    report = faulty.json
    assert report["schema"] == reporting.SCHEMA
    assert report["passed"] is False
    assert report["exit_code"] == faulty.done.returncode == 1
    assert sum(report["counts"].values()) == len(report["tests"])
    found = re.search(r"(\d+) failed, (\d+) passed", faulty.done.stdout)
    assert found is not None
    assert report["counts"]["failed"] == int(found[1]) > 0
    assert report["counts"]["passed"] == int(found[2])
    assert {row["backend"] for row in faulty.rows("failed")} == {"numpy"}
    versions = report["environment"]["backends"]
    assert versions["numpy"] == {"version": np.__version__, "devices": ["cpu"]}
    assert report["profile"] == "ci"
    assert report["examples_per_test"] == 15


def test_each_test_says_what_it_claims_and_how_often_it_tried(faulty: Run) -> None:
    (row,) = [r for r in faulty.json["tests"] if r["test"].endswith("test_value[numpy-5]")]
    assert row["subject"] == "linear_scan"
    assert row["property"] == "value"
    assert 5 < row["examples"] <= 15  # one call a case, repeated cases left out
    assert row["about"].startswith("linear_scan against a loop")
    (row,) = [
        r
        for r in faulty.json["tests"]
        if r["test"].endswith("test_chunks_carry_the_state[array_api_strict]")
    ]
    assert row["property"] == "chunks carry the state"
    assert row["statement"].startswith("Any cuts, empty chunks too")
    assert row["examples"] > 15  # each example calls once a chunk


def test_worst_errors_stand_beside_their_tolerance(faulty: Run) -> None:
    for row in faulty.json["tests"]:
        for w in row["worst"]:
            assert w["share"] == pytest.approx(w["error"] / w["tolerance"])
            assert (w["share"] > 1) <= (row["outcome"] == "failed")
    failed = [w for row in faulty.rows("failed") for w in row["worst"]]
    assert max(w["error"] for w in failed) == pytest.approx(0.5)


def test_the_schema_is_documented(faulty: Run) -> None:
    told = set(re.findall(r"``(\w+)``", reporting.__doc__ or ""))
    row = faulty.rows("failed")[0]
    keys = {*faulty.json, *row, *row["worst"][0], *faulty.json["environment"]}
    assert keys - {"ssmcore", "python", "pytest", "hypothesis"} <= told


def executed(code: str, folder: Path, fault: str) -> Any:
    """Run a snippet as a user would: in a file of its own, elsewhere."""
    path = folder / "pasted.py"
    path.write_text(("import planted\n" if fault else "") + code)
    if fault:
        faults.plant(folder, fault)
    return faults.command(str(path), path=folder, where=folder, planted=bool(fault))


@pytest.mark.parametrize("name", ["test_value[numpy-7]", "test_chunks_carry_the_state[numpy]"])
def test_a_snippet_fails_as_the_test_did(faulty: Run, tmp_path: Path, name: str) -> None:
    """With the fault; and does not without: the fault is what it shows."""
    (row,) = [row for row in faulty.rows("failed") if row["test"].endswith(name)]
    wrong = executed(row["snippet"], tmp_path, faults.WRONG_VALUE)
    assert wrong.returncode == 1, wrong.stdout + wrong.stderr
    (shown,) = re.findall(r"^AssertionError: got (\S+), expected", wrong.stderr, re.MULTILINE)
    told = re.search(r", got (\S+)", row["reason"])
    assert told is not None
    assert complex(shown) == pytest.approx(complex(told[1]), rel=1e-6)
    right = executed(row["snippet"], tmp_path, "")
    assert right.returncode == 0, right.stdout + right.stderr


def test_hypothesis_gives_the_snippet_its_smallest_example(faulty: Run) -> None:
    """Cut at 0 only: the whole sequence as the second chunk."""
    (row,) = [r for r in faulty.rows("failed") if "chunks_carry_the_state[numpy]" in r["test"]]
    assert "Draw 1: [0, 0, 33]" in row["reason"]
    assert "(0, 5, 2)" in row["snippet"].splitlines()[0]


RAISES = """
def fault(a, b, initial, *, reset, reverse):
    if b.shape[-2] == 7:
        raise FloatingPointError("seven steps")
    return reference(a, b, initial, reset=reset, reverse=reverse)
"""


EVERY_OTHER_CALL = """
calls = []

def fault(a, b, initial, *, reset, reverse):
    calls.append(1)
    out = np.array(reference(a, b, initial, reset=reset, reverse=reverse))
    return out + len(calls) % 2
"""


def planted(folder: Path, words: str, fault: str) -> dict[str, Any]:
    """Return the one test of ``words`` that fails, with its snippet, in a run with the fault."""
    options = ("--backend=numpy", "--select=linear_scan", "--json=out.json", "--", "-k", words)
    done = faults.run(*options, where=folder, fault=fault)
    assert done.returncode == 1, done.stdout
    rows = json.loads((folder / "out.json").read_text())["tests"]
    (row,) = [row for row in rows if row["outcome"] == "failed"]
    return row  # type: ignore[no-any-return]


def test_a_snippet_of_several_calls_runs_the_test(tmp_path: Path) -> None:
    row = planted(tmp_path, "layouts", EVERY_OTHER_CALL)
    assert "test_layouts_in_memory[numpy]" in row["snippet"]
    wrong = executed(row["snippet"], tmp_path, EVERY_OTHER_CALL)
    assert wrong.returncode == 1
    assert "1 failed" in wrong.stdout
    right = executed(row["snippet"], tmp_path, "")
    assert right.returncode == 0
    assert "1 passed" in right.stdout


def test_a_snippet_raises_what_the_library_raised(tmp_path: Path) -> None:
    row = planted(tmp_path, "value and numpy-7", RAISES)
    assert row["reason"].startswith("FloatingPointError: seven steps")
    wrong = executed(row["snippet"], tmp_path, RAISES)
    assert wrong.returncode == 1
    assert wrong.stderr.rstrip().endswith("FloatingPointError: seven steps")
    assert executed(row["snippet"], tmp_path, "").returncode == 0


class Reader(HTMLParser):
    """Keeps the text and the tags of a page; open and close must match."""

    VOID = ("meta", "br", "!doctype")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_stands_alone_and_can_be_read_aloud(faulty: Run) -> None:
    read = Reader(faulty.html)
    assert not {tag for tag, _ in read.tags} & {"script", "link", "img", "iframe", "object"}
    assert "@import" not in faulty.html
    assert "url(" not in faulty.html
    anchors = {attributes["id"] for _, attributes in read.tags if "id" in attributes}
    for tag, attributes in read.tags:
        assert "src" not in attributes
        if tag == "a":
            assert str(attributes["href"])[1:] in anchors
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert ("html", {"lang": "en"}) in read.tags
    assert {"header", "main", "h1", "h2"} <= {tag for tag, _ in read.tags}
    assert "prefers-color-scheme: dark" in faulty.html


def test_the_page_holds_every_property_and_every_failure(faulty: Run) -> None:
    text = "".join(Reader(faulty.html).text)
    for row in faulty.json["tests"]:
        for part in (row["property"], row["statement"], row["about"], row["snippet"]):
            assert part in text
        if row["outcome"] == "failed":
            assert row["test"] in text
            assert row["reason"] in text
    for word in (np.__version__, "array_api_strict", "ci, 15 examples", "5.0e-01 of"):
        assert word in text


def blown_up(faulty: Run, count: int) -> dict[str, Any]:
    rows = []
    for k in range(count):
        row = faulty.json["tests"][k % len(faulty.json["tests"])]
        rows.append(row | {"subject": f"subject_{k % 40}", "test": f"{row['test']}<{k}>"})
    rows[0] |= {"outcome": "skipped", "reason": "<b>no & device</b>"}
    return faulty.json | {"tests": rows, "errors": [{"where": "a.py", "message": "<no>"}]}


def test_a_failure_is_not_explained_at_length(faulty: Run) -> None:
    """Hypothesis's explanation takes minutes for one failure that always comes."""
    for row in faulty.rows("failed"):
        assert "or any other generated value" not in row["reason"]
        assert "Explanation" not in row["reason"]


@pytest.mark.parametrize(
    ("code", "word"),
    [(None, "did not end"), (2, "interrupted"), (3, "internal"), (4, "refused"), (5, "no test")],
)
def test_the_page_says_why_a_run_is_not_whole(faulty: Run, code: int | None, word: str) -> None:
    assert word in page(faulty.json | {"exit_code": code}).partition("</header>")[0]
    assert word not in faulty.html.partition("</header>")[0]


@pytest.mark.parametrize("part", ["version", "devices"])
def test_a_backend_that_cannot_tell_its_version_costs_no_report(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_: object) -> str:
        raise RuntimeError("no driver")

    monkeypatch.setattr(type(backend.load("numpy")), part, breaks)
    report = reporting.Collector().report(["numpy", "array_api_strict"], "dev", 5, 0)
    assert set(report["environment"]["backends"]) == {"array_api_strict"}
    assert "no driver" in report["environment"]["unusable"]["numpy"]
    assert "no driver" in page(report)


def test_thousands_of_rows_make_a_page_of_readable_size(faulty: Run) -> None:
    text = page(blown_up(faulty, 2000))
    read = Reader(text)
    shown = "".join(read.text)
    for part in ("subject_39", "<b>no & device</b>", "Not collected", "<no>"):
        assert part in shown
    assert len(text) < 4_000_000


def crash(nodeid: str) -> pytest.TestReport:
    where = (nodeid.partition("::")[0], None, "")
    text = "worker 'gw0' crashed while running a test"
    return pytest.TestReport(nodeid, where, {}, "failed", text, "call", (), 1.0)


def test_a_test_whose_process_died_is_in_the_report() -> None:
    collector = reporting.Collector()
    collector.pytest_runtest_logreport(crash("x/ssmcore_conformance/test_powers.py::test_a[1]"))
    collector.pytest_runtest_logreport(crash("test_powers.py::test_b[1]"))
    collector.pytest_runtest_logreport(crash("somebody/test_else.py::test_a"))
    collector.pytest_runtest_logreport(crash("somebody/test_powers.py::test_a"))
    collector.pytest_runtest_logreport(crash("test_else.py::test_a"))
    rows = collector.rows()
    assert [row["test"] for row in rows] == [f"test_powers.py::test_{x}[1]" for x in "ab"]
    for row in rows:
        assert (row["subject"], row["outcome"]) == ("powers", "failed")
        assert "crashed" in row["reason"]


def test_a_report_is_written_wholly_or_not_at_all(
    tmp_path: Path, faulty: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.html"
    path.write_text("before")

    def breaks(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", breaks)
    with pytest.raises(SSMError, match="disk full"):
        reporting.write(path, faulty.json)
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["out.html"]
    monkeypatch.undo()
    reporting.write(path, faulty.json)
    assert path.read_text() == faulty.html


def test_infinite_shares_are_written_as_text(tmp_path: Path, faulty: Run) -> None:
    rows = [["a", "numpy", "float64", float("nan"), 1.0], ["b", "numpy", "float64", 1.0, 0.0]]
    worst = reporting._worst(rows)
    assert [w["share"] for w in worst] == [np.inf, np.inf]
    row = faulty.json["tests"][0] | {"worst": worst}
    reporting.write(tmp_path / "out.json", faulty.json | {"tests": [row]})
    read = json.loads((tmp_path / "out.json").read_text(), parse_constant=pytest.fail)
    assert read["tests"][0]["worst"][0]["error"] == "nan"
    assert "inf times" in "".join(Reader(page(faulty.json | {"tests": [row]})).text)

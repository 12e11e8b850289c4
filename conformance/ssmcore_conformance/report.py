"""The report of a run: what was proved, of which backend, how closely, and what was not.

``--ssm-report FILE.json`` writes it as strict JSON. The schema, ``ssmcore-conformance/1``:

* ``schema``; ``passed``: whether the run as a whole did; ``exit_code``: pytest's, null where its
  process died
* ``environment``: versions of ssmcore, Python, pytest and hypothesis; ``platform``, ``machine``,
  ``cpus``; ``backends``: {name: {``version``, ``devices``: the first is the one used}};
  ``unusable``: {name: why} backends that gave no version or no device
* ``profile``: its name; ``examples_per_test``: what it asks of each test; ``started``: UTC, ISO
  8601; ``seconds``: of the whole run
* ``counts``: {outcome: number of tests}; outcomes are passed, failed, xfailed (in the ledger of
  known failures), skipped
* ``errors``: [{``where``, ``message``}] modules that could not be collected
* ``tests``: one object a test:
  ``test``: file::name[parameters]; ``subject``: what is under test; ``about``: the subject in one
  line; ``property``: what is claimed of it; ``statement``: the claim in one line, or "";
  ``function``: file::name; ``backend``: "" for a test of no one backend; ``outcome``;
  ``reason``: why it failed, was skipped or is in the ledger; ``examples``: calls of the library
  that were checked, at least 1; ``seconds``; ``worst``: [{``what``, ``backend``, ``dtype``,
  ``error``, ``tolerance``, ``share`` = error / tolerance}]; ``snippet``: Python that fails in the
  same way, or ""

NaN and infinities are written as text.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from ssmcore_conformance.worst import Worst, share

__all__ = ["OUTCOMES", "RECORD", "SCHEMA", "Collector", "merged", "write"]

SCHEMA = "ssmcore-conformance/1"
RECORD = "ssmcore"
HERE = Path(__file__).resolve().parent
OUTCOMES = ("passed", "failed", "xfailed", "skipped")
BLANK: dict[str, Any] = {
    "subject": "",
    "about": "",
    "property": "",
    "statement": "",
    "function": "",
    "backend": "",
    "examples": 1,
    "worst": [],
    "snippet": "",
}


class Collector:
    """Gathers the records and outcomes of all tests, of all processes.

    The file ``trace`` is there from the first test to the end of the last, and names the test
    that was begun last: what remains of a process that dies.
    """

    def __init__(self, trace: Path | None = None) -> None:
        self.trace = trace
        self.tests: dict[str, dict[str, Any]] = {}
        self.errors: list[dict[str, str]] = []
        self.started = datetime.now(UTC)
        self.clock = time.perf_counter()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Leave word of the test that begins."""
        if self.trace is not None:
            self.trace.write_text(nodeid, encoding="utf-8")

    def pytest_sessionfinish(self) -> None:
        """Say that pytest came to its end."""
        if self.trace is not None:
            self.trace.unlink(missing_ok=True)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep what could not be collected."""
        if report.failed:
            self.errors.append({"where": report.nodeid, "message": _message(report)})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take outcome and duration of each phase, and the record that comes with the last."""
        row = self.tests.setdefault(
            report.nodeid, BLANK | {"outcome": "passed", "reason": "", "seconds": 0.0}
        )
        row["line"] = report.location[1] or 0
        row["seconds"] += report.duration
        outcome, reason = _outcome(report)
        if outcome != "passed" and row["outcome"] != "failed":
            row["outcome"], row["reason"] = outcome, reason
        for name, record in report.user_properties:
            if name == RECORD:
                row.update(record)  # type: ignore[call-overload]

    def rows(self) -> list[dict[str, Any]]:
        """Return the tests of the suite, in the order of its files, and those that crashed in it.

        A test whose process dies sends no record: all that is known is its id.
        """
        kept = []
        for nodeid, row in self.tests.items():
            if "test" in row:
                kept.append(row)
            elif row["outcome"] == "failed" and _of_the_suite(nodeid):
                test = nodeid.rpartition("/")[2]
                names = {"subject": test[5:].partition(".py")[0], "property": "did not finish"}
                kept.append(row | names | {"test": test, "function": test.partition("[")[0]})
        kept.sort(key=lambda row: (row["subject"], row["line"], row["test"]))
        return [{key: value for key, value in row.items() if key != "line"} for row in kept]

    def report(
        self, names: list[str], profile: str, examples: int, exit_code: int | None
    ) -> dict[str, Any]:
        """Return the whole report, by the schema of this module."""
        tests = [row | {"worst": _worst(row["worst"])} for row in self.rows()]
        counts = Counter(row["outcome"] for row in tests)
        return {
            "schema": SCHEMA,
            "passed": exit_code == 0,
            "exit_code": exit_code,
            "environment": _environment(names),
            "profile": profile,
            "examples_per_test": examples,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": time.perf_counter() - self.clock,
            "counts": {outcome: counts[outcome] for outcome in OUTCOMES},
            "errors": self.errors,
            "tests": tests,
        }


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the report to a file, HTML or JSON by its suffix, wholly or not at all."""
    from ssmcore._reporting import write_json, write_text

    if path.suffix == ".json":
        write_json(path, report)
        return
    from ssmcore_conformance.report_html import page

    write_text(path, page(report))


def _of_the_suite(nodeid: str) -> bool:
    """Whether an id is of the suite; it begins with the file where that lies in pytest's root."""
    folder, _, name = nodeid.partition("::")[0].rpartition("/")
    return folder.rpartition("/")[2] in ("", HERE.name) and (HERE / name).is_file()


def _worst(rows: list[list[Any]]) -> list[dict[str, Any]]:
    keys = ("what", "backend", "dtype", "error", "tolerance")
    return [
        dict(zip(keys, row, strict=True)) | {"share": share(row[3], row[4])} for row in sorted(rows)
    ]


def _outcome(report: pytest.TestReport) -> tuple[str, str]:
    """Return what became of one phase of a test, and why."""
    expected = getattr(report, "wasxfail", None)
    if report.failed:
        return "failed", _message(report)
    if report.skipped and expected is not None:
        return "xfailed", str(expected)
    if report.skipped:
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return "skipped", why.removeprefix("Skipped: ")
    return "passed", ""


def _message(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the message of what was raised, or the whole text where there is no one message."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else report.longreprtext
    return str(text)[:4000]


def _environment(names: list[str]) -> dict[str, Any]:
    from ssmcore._reporting import environment, unusable

    broken = {name: why for name in names if (why := unusable(name)) is not None}
    found = environment([name for name in names if name not in broken])
    tools = {name: version(name) for name in ("pytest", "hypothesis")}
    return found | tools | {"unusable": broken}


def merged(rows: list[dict[str, Any]]) -> Worst:
    """Return the worst of all records of ``rows``."""
    worst = Worst()
    for row in rows:
        worst.merge(row["worst"])
    return worst

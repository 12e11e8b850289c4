"""What is known of one test while it runs: what it claims, of which backend, what it found."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from ssmcore_conformance.report import RECORD
from ssmcore_conformance.worst import Worst

__all__ = ["attach", "backend_of", "begin", "explain", "is_ours", "name_of"]

HERE = Path(__file__).resolve().parent
FIXTURES = ("ssm_backend", "ssm_eager", "ssm_autodiff")
PARAMETERS = (*FIXTURES, "library", "differentiable")
"""The parameters of tests whose value is the name of a backend."""
NO_BACKEND = "none"
"""The parameter of a test that no selected backend is fit for."""
LINES = 40
"""A longer snippet is not shown in the terminal where there is a report to hold it."""
WORST = pytest.StashKey[Worst]()
SNIPPET = pytest.StashKey[str]()


def is_ours(item: pytest.Item) -> bool:
    """Whether a test is of the suite, or of somebody who uses its fixtures."""
    fixtures = getattr(item, "fixturenames", ())
    return HERE in item.path.parents or any(name in fixtures for name in ("worst", *FIXTURES))


def name_of(item: pytest.Item) -> str:
    """Return the id of a test from its file on: the same from wherever the suite is run."""
    return item.path.name + item.nodeid[item.nodeid.find("::") :]


def backend_of(item: pytest.Item) -> str:
    """Return the backend of a test; "" for a test of none or of several."""
    callspec = getattr(item, "callspec", None)
    params = callspec.params if callspec is not None else {}
    found = next((str(params[name]) for name in PARAMETERS if name in params), "")
    return "" if found == NO_BACKEND else found


def begin() -> None:
    """Forget the calls of the test before."""
    from ssmcore_conformance.snippets import HISTORY

    HISTORY.clear()


def explain(item: pytest.Item, error: BaseException) -> None:
    """Keep the snippet of a failure, and show it below the traceback."""
    from ssmcore_conformance.snippets import snippet

    module = f"{HERE.name}.{item.path.stem}" if HERE in item.path.parents else str(item.path)
    test = module + item.nodeid[item.nodeid.find("::") :]
    options = [f"--ssm-profile={item.config.getoption('ssm_profile')}", "-pno:cacheprovider"]
    backend = backend_of(item)
    options += [f"--ssm-backend={backend}"] if backend else []
    text = snippet(error, ["--pyargs", test, *options])
    item.stash[SNIPPET] = text
    reports = item.config.getoption("ssm_report")
    if reports and text.count("\n") > LINES:
        text = f"{text.count(chr(10))} lines of Python: see {', '.join(map(str, reports))}\n"
    item.add_report_section("call", "snippet to paste", text)


def attach(item: pytest.Item) -> None:
    """Send all that is known of a test along with its last report."""
    from ssmcore_conformance.snippets import HISTORY

    function = getattr(item, "function", None)
    title = getattr(function, "__name__", item.name)
    recorder = item.stash.get(WORST, None)
    name = name_of(item)
    record: dict[str, Any] = {
        "test": name,
        "subject": item.path.stem.removeprefix("test_"),
        "about": _first_line(getattr(item, "module", None)),
        "property": title.removeprefix("test_").replace("_", " "),
        "statement": _first_line(function),
        "function": name.partition("[")[0],
        "backend": backend_of(item),
        "examples": max(1, HISTORY.count),
        "worst": recorder.rows() if recorder is not None else [],
        "snippet": item.stash.get(SNIPPET, ""),
    }
    item.user_properties.append((RECORD, record))


def _first_line(thing: Any) -> str:
    text = inspect.getdoc(thing) if thing is not None else None
    return text.strip().splitlines()[0] if text else ""

"""The pytest plugin of the conformance suite: options, backends, profiles, ledgers, reports.

Loaded by every pytest of an environment that has ssmcore, so nothing heavy is imported before a
test module of the suite is collected or a test asks for a backend.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ssmcore_conformance.crowded import crowded
from ssmcore_conformance.recording import NO_BACKEND, WORST, attach, begin, explain, is_ours
from ssmcore_conformance.report import Collector, write
from ssmcore_conformance.report_text import table
from ssmcore_conformance.worst import Worst

if TYPE_CHECKING:
    from ssmcore.backend import Backend
    from ssmcore_conformance.ledger import Entry

HERE = Path(__file__).resolve().parent
EXAMPLES = {"dev": 5, "ci": 15, "nightly": 300}
SUFFIXES = (".html", ".json")
REASONS = {
    "ssm_eager": "JAX, which compiles each random length anew, only in the profile nightly",
    "ssm_autodiff": "no selected backend has automatic differentiation",
}
TESTS_BETWEEN_COUNTS = 10
STARTED = pytest.StashKey[bool]()
COLLECTOR = pytest.StashKey[Collector]()
_ENDED = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ssmcore", "conformance of ssmcore's backends")
    group.addoption(
        "--ssm-backend",
        action="append",
        metavar="NAME[,NAME]",
        help="backends to test (repeatable); default: all whose library is installed",
    )
    group.addoption(
        "--ssm-profile",
        choices=sorted(EXAMPLES),
        default="ci",
        help="examples of each hypothesis test: dev few, ci some and always the same, nightly many",
    )
    group.addoption(
        "--ssm-report",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="write a report, HTML or JSON by the suffix of FILE (repeatable)",
    )
    group.addoption(
        "--ssm-ledger",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="known failures of the backend that FILE (.toml) is named after (repeatable)",
    )
    group.addoption("--ssm-trace", type=Path, help=argparse.SUPPRESS)  # see report.Collector


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("ssm_backend") is not None:
        selected(config)
    if config.getoption("ssm_report"):
        _check_reports(config.getoption("ssm_report"))
    if config.getoption("ssm_ledger"):
        _entries(config)
    if not hasattr(config, "workerinput"):
        config.stash[COLLECTOR] = Collector(config.getoption("ssm_trace"))
        config.pluginmanager.register(config.stash[COLLECTOR], "ssmcore-collector")


def _check_reports(paths: list[Path]) -> None:
    """Raise a usage error where no report can be written, before anything runs."""
    from ssmcore._reporting import check_writable
    from ssmcore.errors import SSMError

    for path in paths:
        if path.suffix not in SUFFIXES:
            msg = f"--ssm-report: {path} ends in {path.suffix!r}; expected .html or .json"
            raise pytest.UsageError(msg)
        try:
            check_writable(path)
        except SSMError as wrong:
            msg = f"--ssm-report: {wrong}"
            raise pytest.UsageError(msg) from None


def _entries(config: pytest.Config) -> list[Entry]:
    """Return the known failures of the selected backends; a bad file is a usage error."""
    from ssmcore.errors import SSMError
    from ssmcore_conformance import ledger

    try:
        return ledger.of_backends(selected(config), config.getoption("ssm_ledger"))
    except SSMError as wrong:
        msg = f"ledger: {wrong}"
        raise pytest.UsageError(msg) from None


def selected(config: pytest.Config) -> list[str]:
    """Return the backends to test; no name, or one that is unknown, is a usage error."""
    from ssmcore import backend
    from ssmcore.errors import SSMError

    given = config.getoption("ssm_backend")
    if given is None:
        return backend.available(test_only=True)
    asked = [name.strip() for part in given for name in part.split(",") if name.strip()]
    if not asked:
        msg = f"--ssm-backend: {','.join(given)!r} names no backend; leave it out to test all"
        raise pytest.UsageError(msg)
    try:
        return [backend.load(name).name for name in dict.fromkeys(asked)]
    except SSMError as wrong:
        msg = f"--ssm-backend: {wrong}"
        raise pytest.UsageError(msg) from None


def pytest_report_header(config: pytest.Config) -> list[str]:
    if not (config.getoption("ssm_backend") or any("conformance" in a for a in config.args)):
        return []
    profile = config.getoption("ssm_profile")
    described = ", ".join(_described(name) for name in selected(config))
    return [f"ssmcore: profile {profile} ({EXAMPLES[profile]} examples); {described}"]


def _described(name: str) -> str:
    """Return the backend's version and the settings of its library that change numbers."""
    from ssmcore import backend
    from ssmcore._reporting import unusable

    why = unusable(name)
    if why is not None:
        return f"{name} ({why})"
    version = f"{name} {backend.load(name).version()}"
    if name == "torch":
        import torch

        precision = torch.get_float32_matmul_precision()
        strict = torch.are_deterministic_algorithms_enabled()
        return f"{version} (float32 matmul {precision}, deterministic {strict})"
    if name == "jax":
        import jax

        matmul = getattr(jax.config, "jax_default_matmul_precision", None) or "default"
        return f"{version} (float64 on, matmul precision {matmul}, {jax.default_backend()})"
    return version


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> None:
    """Start the suite before the first of its modules is imported."""
    config = parent.config
    if STARTED in config.stash or HERE not in Path(module_path).resolve().parents:
        return
    config.stash[STARTED] = True
    _load_profile(config.getoption("ssm_profile"))
    if "jax" in selected(config):
        from ssmcore import backend

        backend.load("jax").enable_float64()


def _load_profile(name: str) -> None:
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        f"ssmcore-{name}",
        max_examples=EXAMPLES[name],
        derandomize=name == "ci",
        deadline=None,
        database=None,
        print_blob=True,
        phases=set(Phase) - {Phase.explain},  # takes minutes for one failure, and says little
        # the one function-scoped fixture beside @given is the recorder, which is meant to add up
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    settings.load_profile(f"ssmcore-{name}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    config = metafunc.config
    wanted: dict[str, Callable[[str], bool]] = {
        "ssm_backend": lambda name: True,
        "ssm_eager": lambda name: name != "jax" or config.getoption("ssm_profile") == "nightly",
        "ssm_autodiff": lambda name: _loaded(name).gradients,
    }
    for fixture in set(wanted) & set(metafunc.fixturenames):
        names: list[Any] = [name for name in selected(config) if wanted[fixture](name)]
        none = pytest.param(NO_BACKEND, marks=pytest.mark.skip(reason=REASONS.get(fixture, "")))
        metafunc.parametrize(fixture, names or [none], indirect=True)


@pytest.fixture
def ssm_backend(request: pytest.FixtureRequest) -> Backend:
    """Every selected backend in turn."""
    return _loaded(request.param)


@pytest.fixture
def ssm_eager(request: pytest.FixtureRequest) -> Backend:
    """Every selected backend; JAX, which compiles each random length anew, only nightly."""
    return _loaded(request.param)


@pytest.fixture
def ssm_autodiff(request: pytest.FixtureRequest) -> Backend:
    """Every selected backend that differentiates, in turn."""
    return _loaded(request.param)


def _loaded(name: str) -> Backend:
    return importlib.import_module("ssmcore.backend").load(name)  # type: ignore[no-any-return]


@pytest.fixture
def worst(request: pytest.FixtureRequest) -> Worst:
    """Record errors: worst(name, backend, dtype, error, tolerance); a table is shown at the end."""
    return request.node.stash.setdefault(WORST, Worst())  # type: ignore[no-any-return]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if is_ours(item):
        begin()


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Let go of compiled programs in time; counting mappings takes longer than many a test."""
    if is_ours(item) and next(_ENDED) % TESTS_BETWEEN_COUNTS == 0 and crowded():
        for name in selected(item.config):
            _loaded(name).forget_compiled()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the reports of a test: the snippet to that of a failure, all else to the last."""
    if not is_ours(item):
        return (yield)
    error = call.excinfo.value if call.excinfo is not None else None
    own = hasattr(item, "function")  # a stale entry of a ledger is no test to run again
    if own and call.when == "call" and isinstance(error, Exception | pytest.fail.Exception):
        explain(item, error)
    if call.when == "teardown":
        attach(item)
    report = yield
    if report.failed and error is None:  # an expected failure that did not come
        report.longrepr = f"{report.longrepr}: the test passes; remove the entry or the mark"
    return _refused_if_skipped(item, report)


def _refused_if_skipped(item: pytest.Item, report: pytest.TestReport) -> pytest.TestReport:
    """Let a known failure that is skipped fail: nobody could tell when its entry is stale."""
    from ssmcore_conformance.ledger_marks import ENTRY

    entry = item.stash.get(ENTRY, None)
    if entry is not None and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{entry}: the test is skipped; correct or remove the entry"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, None, None]:
    """Bring in the ledgers: all tests are looked at before any is deselected."""
    if not any(map(is_ours, items)):
        return (yield)
    from ssmcore_conformance import ledger_marks

    entries = _entries(config)
    used = ledger_marks.mark(items, entries)
    whole = not any("::" in argument for argument in config.args)
    stale = ledger_marks.stale(items, entries, used) if whole else []
    yield
    items += stale
    return None


def pytest_sessionstart(session: pytest.Session) -> None:
    """Write reports that say that the run did not end: the last word of one that dies."""
    _write(session.config, None)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the reports."""
    _write(session.config, int(session.exitstatus))


def _write(config: pytest.Config, exit_code: int | None) -> None:
    paths = config.getoption("ssm_report")
    if COLLECTOR not in config.stash or not paths:
        return
    profile = config.getoption("ssm_profile")
    report = config.stash[COLLECTOR].report(selected(config), profile, EXAMPLES[profile], exit_code)
    for path in paths:
        write(path, report)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the worst errors, and where the reports are."""
    lines = table(config.stash[COLLECTOR].rows()) if COLLECTOR in config.stash else []
    if lines:
        terminalreporter.section("worst errors (and as a share of the tolerance)")
    for line in lines:
        terminalreporter.write_line(line)
    for path in config.getoption("ssm_report"):
        terminalreporter.write_line(f"report: {path}")

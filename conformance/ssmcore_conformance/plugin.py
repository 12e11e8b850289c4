"""The pytest plugin of the conformance suite: options, backends, profiles, table of worst errors.

Loaded by every pytest of an environment that has ssmcore, so nothing heavy is imported before a
test module of the suite is collected or a test asks for a backend.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ssmcore.backend import Backend

HERE = Path(__file__).resolve().parent
PROPERTY = "ssm_worst"
EXAMPLES = {"dev": 5, "ci": 15, "nightly": 300}
STARTED = pytest.StashKey[bool]()
Key = tuple[str, str, str]
Figures = tuple[float, float]


class Worst:
    """Keeps, per property, backend and dtype, the largest error relative to its tolerance."""

    def __init__(self) -> None:
        self.found: dict[Key, Figures] = {}

    def __call__(self, name: str, backend: str, dtype: str, error: float, tolerance: float) -> None:
        """Record one error beside the tolerance it has to meet."""
        key, new = (name, backend, dtype), (float(error), float(tolerance))
        if key not in self.found or _ratio(new) > _ratio(self.found[key]):
            self.found[key] = new

    def merge(self, rows: list[list[Any]]) -> None:
        """Add what another test, perhaps in another process, has recorded."""
        for name, backend, dtype, error, tolerance in rows:
            self(name, backend, dtype, error, tolerance)

    def rows(self) -> list[list[Any]]:
        """Return the records as plain lists, fit to be sent between processes."""
        return [[*key, *figures] for key, figures in self.found.items()]


def _ratio(figures: Figures) -> float:
    error, tolerance = figures
    if error != error:
        return float("inf")
    return error / tolerance if tolerance else float("inf") if error else 0.0


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


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Table(), "ssmcore-worst-errors")
    if config.getoption("ssm_backend"):
        selected(config)


def selected(config: pytest.Config) -> list[str]:
    """Return the backends to test; a name that is unknown or not installed is a usage error."""
    from ssmcore import backend
    from ssmcore.errors import SSMError

    given = config.getoption("ssm_backend")
    if not given:
        return backend.available(test_only=True)
    asked = [name.strip() for part in given for name in part.split(",") if name.strip()]
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
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        f"ssmcore-{name}",
        max_examples=EXAMPLES[name],
        derandomize=name == "ci",
        deadline=None,
        database=None,
        print_blob=True,
        # the one function-scoped fixture beside @given is the recorder, which is meant to add up
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    settings.load_profile(f"ssmcore-{name}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "ssm_backend" in metafunc.fixturenames:
        metafunc.parametrize("ssm_backend", selected(metafunc.config), indirect=True)
    if "ssm_eager" in metafunc.fixturenames:
        names = [name for name in selected(metafunc.config) if name != "jax"]
        metafunc.parametrize("ssm_eager", names, indirect=True)
    if "ssm_autodiff" in metafunc.fixturenames:
        names = [name for name in selected(metafunc.config) if _loaded(name).gradients]
        metafunc.parametrize("ssm_autodiff", names, indirect=True)


@pytest.fixture
def ssm_backend(request: pytest.FixtureRequest) -> Backend:
    """Every selected backend in turn."""
    return _loaded(request.param)


@pytest.fixture
def ssm_eager(request: pytest.FixtureRequest) -> Backend:
    """Every selected backend but JAX, which would compile each random length anew."""
    return _loaded(request.param)


@pytest.fixture
def ssm_autodiff(request: pytest.FixtureRequest) -> Backend:
    """Every selected backend that differentiates, in turn."""
    return _loaded(request.param)


def _loaded(name: str) -> Backend:
    return importlib.import_module("ssmcore.backend").load(name)  # type: ignore[no-any-return]


@pytest.fixture
def worst(request: pytest.FixtureRequest) -> Iterator[Worst]:
    """Record errors: worst(name, backend, dtype, error, tolerance); a table is shown at the end."""
    recorder = Worst()
    yield recorder
    request.node.user_properties.append((PROPERTY, recorder.rows()))


class Table:
    """Gathers the records of all tests, of all processes, and prints them at the end."""

    def __init__(self) -> None:
        self.worst = Worst()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the records along with the report of a test's end."""
        if report.when == "teardown":
            for name, rows in report.user_properties:
                if name == PROPERTY:
                    self.worst.merge(rows)  # type: ignore[arg-type]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print one line per property and dtype: worst error, and as a share of its tolerance."""
        if not self.worst.found:
            return
        terminalreporter.section("worst errors (and as a share of the tolerance)")
        lines: dict[tuple[str, str], dict[str, Figures]] = {}
        for (name, backend, dtype), figures in sorted(self.worst.found.items()):
            lines.setdefault((name, dtype), {})[backend] = figures
        width = max(len(name) for name, _ in lines)
        for (name, dtype), by_backend in lines.items():
            cells = (
                f"{backend} {figures[0]:.1e} ({_ratio(figures):.1e})"
                for backend, figures in by_backend.items()
            )
            terminalreporter.write_line(f"{name:{width}}  {dtype:10}  {'  '.join(cells)}")

"""What `import ssmcore` loads, how long it takes, and that no file reaches past the seam."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import statistics
from pathlib import Path

import pytest
from checks import fresh

import ssmcore

ROOT = Path(ssmcore.__file__).parent
HEAVY = ("torch", "jax", "cupy", "typer", "rich", "hypothesis")
LIBRARIES = ("torch", "jax", "cupy", "array_api_strict")
PACKAGES = ("ssmcore_numpy", "ssmcore_torch", "ssmcore_jax", "ssmcore_cupy", "ssmcore_conformance")
LOADED = "import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"


def _loaded(code: str) -> set[str]:
    return set(fresh.output(f"{code}\n{LOADED}").split())


def test_import_loads_no_array_library_but_numpy() -> None:
    loaded = _loaded("import ssmcore")
    assert {"numpy", "ssmcore"} <= loaded
    assert not loaded & {*HEAVY, *PACKAGES}


@pytest.mark.parametrize(
    "package", ["ssmcore_numpy", "ssmcore_torch", "ssmcore_jax", "ssmcore_cupy"]
)
def test_importing_a_backend_for_its_entry_point_loads_no_library(package: str) -> None:
    assert not _loaded(f"from {package} import BACKEND") & set(HEAVY)


def test_numpy_work_loads_nothing_more() -> None:
    loaded = _loaded(
        "import numpy, ssmcore as ssm\n"
        "layer = ssm.S6(d_model=2)\n"
        "ssm.to_numpy(layer(layer.init(0, dtype='float64'), numpy.ones((3, 2))))"
    )
    assert not loaded & set(HEAVY)


def test_the_check_on_loaded_modules_can_fail() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    assert "torch" in _loaded("import ssmcore_torch; ssmcore_torch.LRU")
    assert "typer" in _loaded("import ssmcore, typer")


def test_import_time_is_printed() -> None:
    code = "import time; t = time.perf_counter(); import ssmcore; print(time.perf_counter() - t)"
    whole = [float(fresh.output(code)) for _ in range(5)]
    alone = [float(fresh.output(code.replace("ssmcore", "numpy"))) for _ in range(5)]
    print(
        f"import ssmcore: median {statistics.median(whole):.3f} s of 5 fresh interpreters, "
        f"of which NumPy takes {statistics.median(alone):.3f} s"
    )
    assert min(whole) > 0


def _modules() -> list[str]:
    found = pkgutil.walk_packages([str(ROOT)], "ssmcore.")
    # ssmcore.__main__ is no module to import: it runs the command line.
    return [module.name for module in found if not module.name.endswith("__main__")]


@pytest.mark.parametrize("name", _modules())
def test_every_module_can_be_imported(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} says nothing about itself"
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public), f"{name}.__all__ names {public}, which is not there"


def _imported(source: str) -> set[str]:
    """Return the top-level names of all modules that ``source`` imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
            found |= {text.split(".")[0] for text in texts if isinstance(text, str)}
    return found


def test_no_file_of_the_core_imports_an_array_library_or_a_backend() -> None:
    files = sorted(ROOT.rglob("*.py"))
    assert ROOT / "backend.py" in files
    wrong = {
        str(path.relative_to(ROOT)): _imported(path.read_text()) & {*LIBRARIES, *PACKAGES}
        for path in files
        if path != ROOT / "backend.py"
    }
    assert {path: names for path, names in wrong.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import torch.nn",
        "def f():\n    from jax import numpy",
        "importlib.import_module('cupy.cuda')",
        "__import__('torch')",
        "from ssmcore_torch import BACKEND",
    ],
)
def test_the_check_on_the_core_can_fail(line: str) -> None:
    assert _imported(line) & {*LIBRARIES, *PACKAGES}


def test_no_source_root_is_a_package() -> None:
    for root in ("backends", "conformance"):
        folder = ROOT.parent / root
        assert not (folder / "__init__.py").exists()

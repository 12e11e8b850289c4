"""The wheel: what is in it, what is not, and that it runs where nothing else of the project is."""

from __future__ import annotations

import configparser
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from checks import fresh

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "ssmcore",
    "ssmcore_numpy",
    "ssmcore_torch",
    "ssmcore_jax",
    "ssmcore_cupy",
    "ssmcore_cuda",
    "ssmcore_numba",
    "ssmcore_conformance",
}
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def _pip(*arguments: str) -> None:
    done = subprocess.run([*PIP, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


@pytest.fixture(scope="module")
def project() -> dict[str, dict[str, dict[str, str]]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]  # type: ignore[no-any-return]


def test_it_holds_the_packages_and_their_metadata(names: list[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert len(tops) == len(PACKAGES) + 1


def test_every_package_is_typed(names: list[str]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)


def test_every_module_of_the_sources_is_in_it(names: list[str]) -> None:
    sources = {
        path.relative_to(root).as_posix()
        for root in (ROOT, ROOT / "backends", ROOT / "conformance")
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
    }
    assert sources
    assert sources == {name for name in names if name.endswith(".py")}


def test_every_kernel_of_the_sources_is_in_it(names: list[str]) -> None:
    folder = ROOT / "backends"
    kernels = {path.relative_to(folder).as_posix() for path in folder.glob("*/kernels/*.cu*")}
    assert kernels
    assert kernels <= set(names)


def test_the_data_is_in_it_with_its_licence(names: list[str]) -> None:
    assert {"ssmcore/data/ecg.npy", "ssmcore/data/LICENSE-ecg.md"} <= set(names)
    assert any(".dist-info/licenses/" in name and name.endswith("/LICENSE") for name in names)


@pytest.mark.parametrize(
    "part",
    ["checks/", "backends/", "conformance/", "golden", "__pycache__", ".hypothesis", "benchmarks/"],
)
def test_it_does_not_hold(part: str, names: list[str]) -> None:
    found = [name for name in names if part in name.replace("ssmcore_conformance/", "suite/")]
    assert found == []


def test_its_entry_points_are_those_of_the_project(
    wheel: Path, project: dict[str, dict[str, dict[str, str]]]
) -> None:
    archive = zipfile.ZipFile(wheel)
    (path,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    parser = configparser.ConfigParser()
    parser.read_string(archive.read(path).decode())
    found = {group: dict(parser[group]) for group in parser.sections()}
    assert found == {"console_scripts": project["scripts"], **project["entry-points"]}
    assert set(found["ssmcore.backends"]) == {"numpy", "torch", "jax", "cupy", "array_api_strict"}


RUN = """
import pathlib
import numpy, ssmcore, ssmcore_conformance, ssmcore_numpy
from ssmcore import backend
target = pathlib.Path({target!r})
for module in (ssmcore, ssmcore_conformance, ssmcore_numpy):
    assert target in pathlib.Path(module.__file__).parents, module.__file__
layer = ssmcore.S5(d_model=2, d_state=8)
y = layer(layer.init(0, dtype="float64"), numpy.ones((5, 2)))
assert numpy.all(numpy.isfinite(y)) and numpy.max(numpy.abs(y)) > 0
assert backend.load("numpy").version() == numpy.__version__
print(ssmcore.__version__)
"""


def test_it_runs_once_installed(wheel: Path, tmp_path: Path, project: dict[str, object]) -> None:
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    _pip("install", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    found = fresh.output(RUN.format(target=str(target)), path=target, where=elsewhere)
    assert found == project["version"]

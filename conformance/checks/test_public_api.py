"""The public names, their docstrings, and that the backends' packages offer all of them."""

from __future__ import annotations

import importlib
import inspect
import itertools
from types import ModuleType
from typing import Any

import pytest

import ssmcore
from ssmcore import blocks, networks

PUBLIC = [
    "LRU",
    "LSSL",
    "RGLRU",
    "S4",
    "S4D",
    "S5",
    "S6",
    "Bidirectional",
    "Layer",
    "ParamGroup",
    "SSMError",
    "causal_convolution",
    "diagonal_kernel",
    "diagonal_scan",
    "discretize",
    "dplr_kernel",
    "linear_scan",
    "move",
    "selective_scan",
    "short_convolution",
    "to_numpy",
]
"""Every public name. To add one is a decision: add it here, and to the backends' packages."""

FUNCTIONS = [name for name in PUBLIC if inspect.isfunction(getattr(ssmcore, name))]
SCAFFOLDS = [*blocks.__all__, "LanguageModel", "SequenceClassifier"]
SCAFFOLDS.remove("Block")
LAYERS = ["LRU", "LSSL", "RGLRU", "S4", "S4D", "S5", "S6", "Bidirectional", "Layer"]
SECTIONS = ("Parameters", "Returns", "Raises", "Examples")


def _rank(name: str) -> tuple[bool, bool, str]:
    """Constants-like names first, then classes, then functions."""
    return not name.isupper(), not name[0].isupper(), name


def test_the_public_names_are_these() -> None:
    assert ssmcore.__all__ == PUBLIC
    assert sorted(PUBLIC, key=_rank) == PUBLIC
    assert FUNCTIONS


def test_nothing_else_is_public() -> None:
    found = {
        name
        for name, value in vars(ssmcore).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert found == set(PUBLIC)


def _sections(doc: str) -> list[str]:
    lines = doc.splitlines()
    return [a for a, b in itertools.pairwise(lines) if a and b == "-" * len(a)]


def _problems(thing: Any, sections: tuple[str, ...]) -> list[str]:
    doc = inspect.getdoc(thing) or ""
    first, _, rest = doc.partition("\n")
    found = _sections(doc)
    problems = [f"no section {name}" for name in sections if name not in found]
    if not first.rstrip().endswith(".") or len(first) > 100:
        problems.append(f"its summary is no sentence on one line: {first!r}")
    if rest and rest.partition("\n")[0].strip():
        problems.append("no blank line after the summary")
    return problems


@pytest.mark.parametrize("name", PUBLIC)
def test_docstrings(name: str) -> None:
    thing = getattr(ssmcore, name)
    assert _problems(thing, SECTIONS if name in FUNCTIONS else ()) == []


@pytest.mark.parametrize("package", ["ssmcore", "ssmcore_torch", "ssmcore_jax"])
@pytest.mark.parametrize("name", [*LAYERS, "Mamba", "LanguageModel"])
def test_methods_of_layers_have_docstrings(package: str, name: str) -> None:
    _library(package)
    places = [importlib.import_module(package), blocks, networks]
    kind = next(getattr(place, name) for place in places if hasattr(place, name))
    for base in kind.__mro__:
        if not base.__module__.startswith("ssmcore"):
            continue
        for method, value in vars(base).items():
            if inspect.isfunction(value) and not method.startswith("_"):
                assert inspect.getdoc(value), f"{package}.{name}.{method}"


def test_the_check_on_docstrings_can_fail() -> None:
    def bare() -> None:
        """Two lines
        of summary
        """

    assert len(_problems(bare, SECTIONS)) == len(SECTIONS) + 2


def _library(package: str) -> None:
    library = package.removeprefix("ssmcore").removeprefix("_")
    if library:
        pytest.importorskip(library, reason=f"{library} is not installed")


@pytest.mark.parametrize("package", ["ssmcore_torch", "ssmcore_jax"])
def test_backend_packages_offer_every_name(package: str) -> None:
    _library(package)
    module = importlib.import_module(package)
    assert set(module.__all__) == {*PUBLIC, *SCAFFOLDS, "Module", "BACKEND"}
    assert sorted(module.__all__, key=_rank) == module.__all__
    assert set(dir(module)) >= set(PUBLIC)
    for name in PUBLIC:
        own, core = getattr(module, name), getattr(ssmcore, name)
        assert (own is not core) == (name in LAYERS), name
    with pytest.raises(AttributeError, match="S7"):
        module.S7  # noqa: B018


@pytest.mark.parametrize("package", ["ssmcore_torch", "ssmcore_jax"])
@pytest.mark.parametrize("name", [*LAYERS[:-1], *SCAFFOLDS])
def test_help_shows_the_options_of_the_layer(package: str, name: str) -> None:
    _library(package)
    own = getattr(importlib.import_module(package), name)
    core = next(getattr(m, name) for m in (ssmcore, blocks, networks) if hasattr(m, name))
    options = list(inspect.signature(own).parameters)
    assert options == [*inspect.signature(core).parameters, "seed", "device", "dtype"]
    assert {"Attributes", "Notes", "Examples"} <= set(_sections(own.__doc__))
    assert own.__doc__.splitlines()[0] == (core.__doc__ or "").splitlines()[0]
    assert own.__name__ == own.__qualname__ == name

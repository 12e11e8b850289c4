"""``ssmcore compare``: what it prints, its exit codes, what it refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import ssmcore as ssm
from ssmcore import checkpoints
from ssmcore.cli import app

pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture(autouse=True)
def _wide_types_as_they_were() -> Iterator[None]:
    """The command switches JAX's 64-bit types on for the whole process."""
    jax = sys.modules.get("jax")
    before = jax.config.read("jax_enable_x64") if jax else False
    yield
    jax = sys.modules.get("jax")
    if jax:
        jax.config.update("jax_enable_x64", before)


MODELS = """
import torch
import ssmcore as ssm
from ssmcore import checkpoints
torch.manual_seed(0)
linear = torch.nn.Linear(3, 3)
other = torch.nn.Linear(3, 3)
layer = ssm.S5(d_model=3, d_state=8)
same = (layer, layer.init(0, backend="torch"))
selective = ssm.S6(d_model=3, d_state=2)
nested = (selective, selective.init(0, backend="torch"))
flat = (selective, checkpoints.flatten(nested[1]))
wrong = (layer, same[1] | {"D": same[1]["D"] * torch.tensor([1.0, 1.5, 1.0])})
plain = lambda u: u * 3.0
scaled = lambda u: u * 3.000003
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "compared_models", raising=False)
    (tmp_path / "compared_models.py").write_text(MODELS)
    layer = ssm.S5(d_model=3, d_state=8)
    checkpoints.save("s5.safetensors", {"model": "S5", "d_model": 3, "d_state": 8}, layer.init(0))
    return tmp_path


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["compare", *arguments])


def test_command_on_a_file_and_a_module(folder: Path) -> None:
    found = command("s5.safetensors", "compared_models:same", "--json", "report.json")
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[-1] == "verdict: rounding"
    report = json.loads((folder / "report.json").read_text())
    assert report["parts"][0]["shape"] == [2, 256, 3]
    wrong = command("s5.safetensors", "compared_models:wrong", "--length", "20", "--seed", "1")
    assert wrong.exit_code == 1
    assert "y parts first at batch 0, time 0, channel 1: reference" in wrong.stdout


def test_command_takes_dotted_names(folder: Path) -> None:
    found = command("compared_models:nested", "compared_models:flat", "--length", "9")
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[-1] == "verdict: equal bit for bit"


def test_command_reads_a_series(folder: Path) -> None:
    np.save("series.npy", np.sin(np.arange(50.0)))
    arguments = ("compared_models:linear", "compared_models:linear", "--input", "series.npy")
    found = command(*arguments, "--channels", "3", "--json", "report.json")
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[-1] == "verdict: equal bit for bit"
    assert json.loads((folder / "report.json").read_text())["parts"][0]["shape"] == [1, 50, 3]
    assert command(*arguments, "--length", "51").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "s5.safetensors"), "'nowhere' is no file; expected MODULE:ATTRIBUTE"),
        (("no_such_module:a", "s5.safetensors"), "importing 'no_such_module' raises"),
        (("compared_models:liner", "s5.safetensors"), "did you mean 'linear'"),
        (("compared_models:linear", "compared_models:other"), "expected --channels H"),
        (("compared_models.py", "s5.safetensors"), "not a safetensors file"),
        (("s5.safetensors", "s5.safetensors", "--dtype", "float16"), "dtype is 'float16'"),
        (("s5.safetensors", "s5.safetensors", "--json", "no/r.json"), "cannot write a file there"),
        (("a" * 300, "s5.safetensors"), "is no file"),
        (("odd.safetensors", "s5.safetensors"), "its configuration names no layer"),
    ],
)
def test_command_with_bad_input(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    checkpoints.save("odd.safetensors", {"model": "S9"}, {"D": np.ones(2)})
    found = command(*arguments)
    assert found.exit_code == 2, found.output
    assert message in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_command_that_cannot_decide_has_an_exit_code_of_its_own(folder: Path) -> None:
    found = command("compared_models:plain", "compared_models:scaled", "--channels", "3")
    assert found.exit_code == 3, found.output
    assert found.stdout.splitlines()[-1] == "verdict: undecided"

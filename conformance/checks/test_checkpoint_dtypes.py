"""Checkpoint files: dtypes that can and cannot be stored, and paths that can be none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import fresh

from ssmcore import checkpoints
from ssmcore.checkpoints.files import DTYPES, FORMAT, VERSION
from ssmcore.errors import SSMError

STORED = (
    "float64", "float32", "float16", "int64", "int32", "int16", "int8",
    "uint64", "uint32", "uint16", "uint8", "bool",
)  # fmt: skip
OURS = {"ssmcore": json.dumps({"format": FORMAT, "version": VERSION, "config": {}})}


def test_every_dtype_that_is_saved_is_loaded(tmp_path: Path) -> None:
    given = {name: np.ones(2, name) for name in STORED}
    checkpoints.save(tmp_path / "x", {}, given)
    found = checkpoints.load(tmp_path / "x")[1]
    assert {name: x.dtype.name for name, x in found.items()} == {name: name for name in STORED}
    assert len(DTYPES) == len(STORED)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="longdouble is float64 here")
def test_more_than_64_bits_cannot_be_saved(tmp_path: Path) -> None:
    message = r"save: a\.b has dtype float\d+; expected real numbers of up to 64 bits"
    with pytest.raises(SSMError, match=message):
        checkpoints.save(tmp_path / "x", {}, {"a": {"b": np.ones(2, np.longdouble)}})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("dtype", "name"), [("bfloat16", "BF16"), ("float8_e4m3fn", "F8_E4M3")])
def test_a_dtype_that_numpy_has_not_is_named(tmp_path: Path, dtype: str, name: str) -> None:
    """Whether or not something else has taught NumPy that dtype; the file is whole."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    files = pytest.importorskip("safetensors.torch", reason="PyTorch is not installed")
    tensors = {"D": torch.ones(2), "dt_proj.bias": torch.zeros(2, dtype=getattr(torch, dtype))}
    files.save_file(tensors, tmp_path / "x", metadata=OURS)
    message = rf"has dt_proj\.bias in dtype {name}; expected one of F64, F32, .*save it again"
    with pytest.raises(SSMError, match=message):
        checkpoints.load(tmp_path / "x")
    code = f"from ssmcore import checkpoints; checkpoints.load({str(tmp_path / 'x')!r})"
    assert f"in dtype {name}; expected one of F64" in fresh.failure(code)


@pytest.mark.parametrize("name", ["a\0b", "a" * 300])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(SSMError, match="cannot write a file there"):
        checkpoints.save(str(tmp_path / name), {}, {"D": np.ones(2)})
    with pytest.raises(SSMError, match=r"no file .*ssmcore\.checkpoints\.save"):
        checkpoints.load(str(tmp_path / name))
    assert os.listdir(tmp_path) == []


def test_permissions_of_an_old_file_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "x"
    checkpoints.save(file, {}, {"D": np.ones(2)})
    file.chmod(0o640)
    checkpoints.save(file, {}, {"D": np.zeros(2)})
    assert file.stat().st_mode & 0o777 == 0o640


LAZY = """
import sys, ssmcore
print("ssmcore.checkpoints" in sys.modules, "ssmcore.verify" in sys.modules)
print(ssmcore.checkpoints.save.__name__, ssmcore.verify.run.__name__)
print(hasattr(ssmcore, "chekpoints"))
print(ssmcore.initialization.hippo.__name__, {"torch", "jax"} & sys.modules.keys())
"""


def test_checkpoints_are_found_without_an_import_of_their_own() -> None:
    found: Any = fresh.output(LAZY).splitlines()
    assert found == ["False False", "save run", "False", "hippo set()"]

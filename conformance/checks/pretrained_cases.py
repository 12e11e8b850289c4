"""Tiny checkpoints, whole and damaged, for the tests of folders and of generation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ssmcore import networks
from ssmcore.checkpoints import save_pretrained

GOLDEN = Path(__file__).parent / "golden"
MAMBA, GRIFFIN = GOLDEN / "hf_mamba", GOLDEN / "hf_recurrentgemma"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def io(folder: Path) -> dict[str, np.ndarray]:
    """Return inputs and outputs that the original gave."""
    found: dict[str, np.ndarray] = load_file(folder / "io.safetensors")
    return found


def copy(source: Path, target: Path, **config: Any) -> Path:
    """Copy a checkpoint, with other fields in its configuration (None takes one away)."""
    target.mkdir(parents=True, exist_ok=True)
    fields = json.loads((source / "config.json").read_text()) | config
    (target / "config.json").write_text(json.dumps(fields))
    shutil.copyfile(source / WEIGHTS, target / WEIGHTS)
    return target


def edit(folder: Path, **tensors: Any) -> Path:
    """Change tensors ("__" for "."): None takes one away."""
    found = load_file(folder / WEIGHTS)
    for name, value in tensors.items():
        name = name.replace("__", ".")
        found.pop(name, None)
        if value is not None:
            found[name] = value
    save_file(found, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def shard(folder: Path, count: int = 3) -> dict[str, str]:
    """Cut the weights into shards with an index; return which tensor is where."""
    found = load_file(folder / WEIGHTS)
    names = sorted(found)
    files = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    for i, file in enumerate(files):
        save_file({n: found[n] for n in names[i::count]}, folder / file, metadata={"format": "pt"})
    places = {n: files[i % count] for i, n in enumerate(names)}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / WEIGHTS).unlink()
    return places


def tiny_mamba(folder: Path, layout: str = "transformers", **options: Any) -> Any:
    """Write a random Mamba of ours; return it with its parameters."""
    model = networks.mamba(11, 8, 2, d_state=3, **options)
    params = model.init(5)
    save_pretrained(folder, model, params, layout=layout)
    return model, params


def dtypes(file: Path) -> dict[str, str]:
    """Return the dtype of every tensor, as the file names it."""
    with safe_open(file, framework="numpy") as opened:
        return {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118

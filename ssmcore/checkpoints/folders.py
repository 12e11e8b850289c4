"""What a checkpoint folder holds: which layout, which model, and where its tensors lie."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssmcore.checkpoints import griffin_lm, mamba_lm
from ssmcore.checkpoints.configs import module_from_config, parse_json
from ssmcore.checkpoints.files import KEY, stored_config
from ssmcore.checkpoints.tensors import Stored, header_of
from ssmcore.composition import flattened
from ssmcore.errors import SSMError, nearest
from ssmcore.module import Module
from ssmcore.networks import LanguageModel

__all__ = [
    "CONFIG",
    "INDEX",
    "LAYOUTS",
    "TAPS",
    "WEIGHTS",
    "Found",
    "Layout",
    "is_own",
    "kind_of",
    "open_folder",
    "read_json",
]

CONFIG, WEIGHTS = "config.json", "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
LARGEST = 64 * 2**20
"""Bytes of the largest JSON file that is read."""
TAPS = "conv.weight"
"""The end of the names of weights (K, H) that others store as (H, 1, K)."""


class Layout(NamedTuple):
    """How another program names a model: ``names`` here to there, ``base`` before the model's."""

    read: Callable[[str, Mapping[str, Any]], LanguageModel]
    write: Callable[[LanguageModel], dict[str, Any]]
    names: Mapping[str, str]
    base: str

    def places(self, names: Iterable[str]) -> dict[str, str]:
        """Return the name there of every name here; SSMError for one it has no place for."""
        found = {}
        for name in names:
            parts = name.split(".")
            number = parts[1] if parts[0] == "layers" else ""
            key = ".".join(["layers", "N", *parts[2:]]) if number else name
            if key not in self.names:
                msg = f"there is no place for {name}"
                raise SSMError(msg)
            found[name] = self.names[key].replace(".N.", f".{number}.")
        return found


_SSM_NAMES = mamba_lm.NAMES | {"embedding.weight": "backbone.embedding.weight"}
LAYOUTS = {
    "mamba": Layout(
        mamba_lm.from_transformers, mamba_lm.to_transformers, mamba_lm.NAMES, "backbone."
    ),
    "recurrent_gemma": Layout(
        griffin_lm.from_transformers, griffin_lm.to_transformers, griffin_lm.NAMES, "model."
    ),
    "mamba_ssm": Layout(mamba_lm.from_mamba_ssm, mamba_lm.to_mamba_ssm, _SSM_NAMES, "backbone."),
}


class Found(NamedTuple):
    """A model and its tensors: ``places`` by names here, ``copies`` of tied ones by names there."""

    where: str
    model: Module
    tensors: Mapping[str, Stored]
    places: Mapping[str, str]
    copies: Mapping[str, str]
    own: bool

    def stored_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape in the file of a parameter of ``shape``."""
        return shape if self.own or not name.endswith(TAPS) else (shape[1], 1, shape[0])

    def restored(self, name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return a parameter as it is here."""
        return values if self.own or not name.endswith(TAPS) else values[:, 0, :].T


def open_folder(path: Path) -> Found:
    """Return what the folder, or file of ssmcore's own, at ``path`` holds; no weight is read."""
    if path.is_file():
        if (path.parent / CONFIG).is_file() and KEY not in header_of(path)[1]:
            msg = f"{str(path)!r} is one file of a checkpoint: give the folder {str(path.parent)!r}"
            raise SSMError(msg)
        return _own(path)
    if not path.is_dir():
        msg = f"no folder {str(path)!r}; expected one with {CONFIG} and {WEIGHTS}"
        raise SSMError(msg)
    config_file = path / CONFIG
    if config_file.is_file():
        return _foreign(config_file, read_json(config_file))
    if (path / WEIGHTS).is_file():
        return _own(path / WEIGHTS)
    msg = (
        f"{str(path)!r} has no {CONFIG} and no {WEIGHTS} of ssmcore's own; it has {_listing(path)}"
    )
    raise SSMError(msg)


def _listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))[:20]


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file of reasonable size."""
    try:
        size = file.stat().st_size
        content = file.read_bytes() if size <= LARGEST else b""
    except OSError as error:
        msg = f"{str(file)!r} cannot be read ({error.strerror})"
        raise SSMError(msg) from None
    if size > LARGEST:
        msg = f"{str(file)!r} has {size} bytes; expected at most {LARGEST}"
        raise SSMError(msg)
    return parse_json(content, repr(str(file)))


def _own(file: Path) -> Found:
    tensors, metadata = header_of(file)
    where = repr(str(file))
    config = stored_config(str(file), metadata)
    _check_layers(where, config, len(tensors))
    _check_states(where, config, sum(math.prod(x.shape) for x in tensors.values()))
    model = _named(where, lambda: module_from_config(config))
    names = flattened(model.shapes())
    return Found(where, model, tensors, {name: name for name in names}, {}, own=True)


def is_own(file: Path) -> bool:
    """Whether a file of ssmcore's own is there; a broken one is none."""
    try:
        return file.is_file() and KEY in header_of(file)[1]
    except SSMError:
        return False


def _foreign(file: Path, config: dict[str, Any]) -> Found:
    where = repr(str(file))
    layout = LAYOUTS[kind_of(where, config)]
    tensors = _tensors(file.parent)
    _check_layers(where, config, len(tensors))
    model = _named(where, lambda: layout.read(where, config))
    places = layout.places(flattened(model.shapes()))
    copies = {layout.names["head.weight"]: places["embedding.weight"]} if model.tied else {}
    tensors = _prefixed(tensors, layout.base, places["embedding.weight"])
    return Found(where, model, tensors, places, copies, own=False)


def kind_of(where: str, config: Mapping[str, Any]) -> str:
    """Return which layout a configuration belongs to."""
    kind = config.get("model_type")
    if kind is None and {"d_model", "n_layer"} <= set(config):
        return "mamba_ssm"
    known = [name for name in LAYOUTS if name != "mamba_ssm"]
    if not isinstance(kind, str) or kind not in known:
        hint = nearest(kind, known) if isinstance(kind, str) else ""
        msg = (
            f"{where}: model_type is {kind!r:.50}; expected one of {', '.join(known)}, or "
            f"mamba_ssm's d_model and n_layer{hint}"
        )
        raise SSMError(msg)
    return kind


def _named(where: str, make: Callable[[], Any]) -> Any:
    """Return ``make()``; its SSMError names the file."""
    try:
        return make()
    except SSMError as error:
        if str(error).startswith(where):
            raise
        msg = f"{where}: {error}"
        raise SSMError(msg) from None


def _check_layers(where: str, config: Any, tensors: int) -> None:
    """Raise SSMError for more layers than there are tensors, before any of them is made."""
    if isinstance(config, list):
        for value in config:
            _check_layers(where, value, tensors)
    elif isinstance(config, Mapping):
        for key, value in config.items():
            counts = key in ("num_hidden_layers", "n_layer", "n_layers")
            if counts and isinstance(value, int | float) and not value <= tensors:
                msg = f"{where}: {key} is {value}, and there are {tensors} tensors: one is wrong"
                raise SSMError(msg)
            _check_layers(where, value, tensors)


def _check_states(where: str, config: Any, numbers: int) -> None:
    """Raise SSMError for transitions (N, N) that the file cannot hold, before one is made."""
    inside: Any = config if isinstance(config, list) else ()
    if isinstance(config, Mapping):
        inside, N = config.values(), config.get("d_state", 0)
        known = config.get("model") == "LSSL" and isinstance(N, int | float)
        if known and not numbers >= N * N:
            msg = f"{where}: d_state is {N}, and there are {numbers} numbers: one is wrong"
            raise SSMError(msg)
    for value in inside:
        _check_states(where, value, numbers)


def _prefixed(tensors: dict[str, Stored], base: str, embedding: str) -> dict[str, Stored]:
    """Return the tensors as a language model names them, where they are a base model's."""
    if not any(name.startswith(base) for name in tensors):
        tensors = {n if n.startswith("lm_head.") else base + n: x for n, x in tensors.items()}
    older = {"backbone.embedding.weight": "backbone.embeddings.weight"}
    older |= {new: old for old, new in older.items()}  # mamba_ssm and transformers differ in an s
    alias = older.get(embedding)
    if alias in tensors and embedding not in tensors:
        tensors = {embedding if n == alias else n: x for n, x in tensors.items()}
    return tensors


# --------------------------------------------------------------------------------- weight files


def _tensors(folder: Path) -> dict[str, Stored]:
    """Return all tensors of a folder, from one file or from the shards of an index."""
    if (folder / WEIGHTS).is_file():
        return header_of(folder / WEIGHTS)[0]
    if (folder / INDEX).is_file():
        return _sharded(folder)
    pickled = [name for name in sorted(os.listdir(folder)) if name.endswith(PICKLED)]
    if not pickled:
        msg = f"{str(folder)!r} has neither {WEIGHTS} nor {INDEX}; it has {_listing(folder)}"
        raise SSMError(msg)
    msg = (
        f"{str(folder / pickled[0])!r} is pickled, and unpickling runs whatever code is in it; "
        f"expected {WEIGHTS}. Where you trust it, convert it with torch and safetensors: "
        f"sd = torch.load({pickled[0]!r}, map_location='cpu', weights_only=True); "
        f"safetensors.torch.save_file({{k: v.clone() for k, v in sd.items()}}, {WEIGHTS!r})"
    )
    raise SSMError(msg)


def _sharded(folder: Path) -> dict[str, Stored]:
    where = repr(str(folder / INDEX))
    shards = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        msg = f"{where}: weight_map is {shards!r:.50}; expected an object from tensors to files"
        raise SSMError(msg)
    for name, shard in shards.items():
        if not isinstance(shard, str) or not _plain(shard):
            msg = (
                f"{where}: {name} is in {shard!r:.80}; expected a .safetensors file of this folder"
            )
            raise SSMError(msg)
        if not (folder / shard).is_file():
            msg = f"{str(folder / shard)!r} is missing; {where} has {name} in it: copy it again"
            raise SSMError(msg)
    found: dict[str, Stored] = {}
    for shard in dict.fromkeys(shards.values()):
        held = header_of(folder / shard)[0]
        for name in held:
            if shards.get(name) != shard:
                msg = (
                    f"{str(folder / shard)!r} holds {name}, which {where} has in "
                    f"{shards.get(name)!r}; expected the same"
                )
                raise SSMError(msg)
        found |= held
    for name, shard in shards.items():
        if name not in found:
            msg = f"{str(folder / shard)!r} lacks {name}, which {where} has in it"
            raise SSMError(msg)
    return found


def _plain(name: str) -> bool:
    """Whether ``name`` is that of a safetensors file in the folder itself."""
    return name.endswith(".safetensors") and not set(name) & set("/\\:\0")

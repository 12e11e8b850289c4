"""Writes whole models: ssmcore's own format, and folders that transformers and mamba_ssm read."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssmcore import backend as backends
from ssmcore._arguments import check_flag
from ssmcore._checks import HALF
from ssmcore._files import replace
from ssmcore.arrays import leaves
from ssmcore.blocks import Mamba
from ssmcore.checkpoints.configs import module_config
from ssmcore.checkpoints.files import metadata_of, path_name
from ssmcore.checkpoints.folders import (
    CONFIG,
    INDEX,
    LAYOUTS,
    TAPS,
    WEIGHTS,
    is_own,
    kind_of,
    read_json,
)
from ssmcore.checkpoints.same import difference
from ssmcore.checkpoints.tensors import FLOATS, write
from ssmcore.checkpoints.tokens import GENERATION, SPECIAL, check_special_tokens, generation_config
from ssmcore.errors import SSMError, check_choice
from ssmcore.module import Module
from ssmcore.typing import Array, Params

__all__ = ["save_pretrained"]


def save_pretrained(
    path: str | os.PathLike[str],
    model: Module,
    params: Params,
    *,
    layout: str = "ssmcore",
    dtype: str | None = None,
    special_tokens: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a whole model: what it is, and its weights; an old checkpoint is replaced at once.

    Parameters
    ----------
    path : path
        A folder, made where there is none; with layout "ssmcore" also a file "*.safetensors".
    model : Module
    params : nested dict of arrays, or flat with dotted names
        Of any library.
    layout : "ssmcore", "transformers" or "mamba_ssm"
        The first takes any module: one safetensors file with the configuration in its header. The
        others take the language models that those programs know. mamba_ssm itself loads pickled
        weights alone: give it ``safetensors.torch.load_file(...)`` by ``load_state_dict``.
    dtype : "float32", "float64", "bfloat16", "float16" or None
        None keeps each array's. In half precision are stored only the weights of products and
        embeddings; everything else is float32 beside them.
    special_tokens : mapping, optional
        bos_token_id, eos_token_id, pad_token_id; goes into config.json, and into
        generation_config.json beside what is there.
    overwrite : bool
        Whether another model in the folder may be deleted first. Without, one that is there must be
        the same but for its weights, so that at any moment the old or the new one is whole.

    Raises
    ------
    SSMError
        Parameters of another model, or not finite in the dtype asked for; a model that the layout
        cannot say; a folder that holds another one or cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import ssmcore as ssm
    >>> from ssmcore.checkpoints import load_pretrained, save_pretrained
    >>> layer = ssm.Bidirectional.of(ssm.S5(4, d_state=8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_pretrained(folder, layer, layer.init(0))
    ...     os.listdir(folder), load_pretrained(folder)[0] == layer
    (['model.safetensors'], True)
    """
    check_choice("save_pretrained", "layout", layout, ("ssmcore", "transformers", "mamba_ssm"))
    check_flag("save_pretrained", overwrite=overwrite)
    if dtype is not None:
        check_choice("save_pretrained", "dtype", dtype, FLOATS.values())
    special = check_special_tokens("save_pretrained", special_tokens)
    target = Path(path_name("save_pretrained", path))
    own = module_config(model)
    flat = dict(leaves(model._check_params(params)))
    dtypes = {name: _dtype(name, x, model, dtype) for name, x in flat.items()}
    if layout == "ssmcore":
        metadata = metadata_of(own)
        target = target if target.suffix == ".safetensors" else _folder(target) / WEIGHTS
        generation = generation_config(target.parent, special)
        if target.name == WEIGHTS:
            _check_place(target.parent, None, model, overwrite)
        _write_weights(target, [(name, name) for name in flat], flat, dtypes, metadata)
        _write_tokens(target.parent, generation)
        return
    kind = "mamba_ssm" if layout == "mamba_ssm" else _kind(model)
    config = _config(kind, model)
    places = LAYOUTS[kind].places(flat)
    generation = generation_config(target, special)
    config |= _check_place(_folder(target), kind, model, overwrite)
    config |= special
    if layout == "transformers":
        largest = max(flat, key=lambda name: int(np.prod(flat[name].shape)))
        config |= {"dtype": dtypes[largest]}
        config = dict.fromkeys(SPECIAL) | config
    pairs = list(places.items())
    if kind == "mamba_ssm" and config["tie_embeddings"]:  # asked for under both names there
        pairs.append(("embedding.weight", LAYOUTS[kind].names["head.weight"]))
    _write_weights(target / WEIGHTS, pairs, flat, dtypes, {"format": "pt"}, foreign=True)
    replace(target / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    _write_tokens(target, generation)
    _delete_shards(target)


def _dtype(name: str, x: Array, model: Module, dtype: str | None) -> str:
    """Return the dtype that a parameter is stored in."""
    kind = dtype or backends.dtype_name(x)
    return "float32" if kind in HALF and name not in _loose(model) else kind


@functools.lru_cache(maxsize=1)
def _loose(model: Module) -> frozenset[str]:
    return model._loose()


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{str(path)!r}: cannot make a folder there ({error.strerror})"
        raise SSMError(msg) from None
    return path


def _kind(model: Module) -> str:
    """Return which of transformers' architectures a model may be."""
    block = getattr(model, "block", None)
    first = block[0] if isinstance(block, tuple) else block
    return "mamba" if isinstance(getattr(first, "mixer", None), Mamba) else "recurrent_gemma"


def _config(kind: str, model: Any) -> dict[str, Any]:
    """Return the configuration that says ``model``; SSMError where none says it exactly."""
    layout = LAYOUTS[kind]
    try:
        config = layout.write(model)
        differs = difference(model, layout.read("its configuration", config))
    except (AttributeError, KeyError, TypeError, StopIteration):
        differs = f"it is {model!r:.80}"
    except SSMError as error:
        differs = str(error)
    if differs:
        msg = f"save_pretrained: the layout of {kind} cannot say this model: {differs}"
        raise SSMError(msg)
    return config


def _check_place(folder: Path, kind: str | None, model: Any, overwrite: bool) -> dict[str, Any]:
    """Return what to keep of the configuration in ``folder``, {} where there is none.

    Raises SSMError for that of another model, which cannot be replaced at once.
    """
    config = folder / CONFIG
    if not config.exists():
        if kind is not None and not overwrite and is_own(folder / WEIGHTS):
            msg = (
                f"{str(folder / WEIGHTS)!r} is of ssmcore's own layout, and two files cannot be "
                "replaced at once; expected an empty folder, or overwrite=True"
            )
            raise SSMError(msg)
        return {}
    if kind is not None:
        with contextlib.suppress(SSMError):
            found = read_json(config)
            if kind_of("", found) == kind and not difference(model, LAYOUTS[kind].read("", found)):
                return {name: found[name] for name in SPECIAL if name in found}
    if not overwrite:
        msg = (
            f"{str(config)!r} is of another model, and two files cannot be replaced at once; "
            "expected an empty folder, or overwrite=True, which deletes the old one first"
        )
        raise SSMError(msg)
    config.unlink()
    return {}


def _write_weights(
    path: Path,
    places: Iterable[tuple[str, str]],
    flat: Mapping[str, Array],
    dtypes: Mapping[str, str],
    metadata: Mapping[str, str],
    *,
    foreign: bool = False,
) -> None:
    def entry(name: str, place: str) -> tuple[str, str, tuple[int, ...], Any]:
        turn = foreign and name.endswith(TAPS)
        shape = tuple(flat[name].shape)
        values = functools.partial(_host, flat[name], turn)
        return place, dtypes[name], (shape[1], 1, shape[0]) if turn else shape, values

    write(path, (entry(name, place) for name, place in places), metadata)


def _host(x: Array, turn: bool) -> np.ndarray[Any, Any]:
    """Return an array of any library in NumPy, bfloat16 as float32; taps as others store them."""
    host = backends.of(x).to_numpy(x)
    host = host.astype(np.float32) if backends.dtype_name(x) == "bfloat16" else host
    return host.T[:, None, :] if turn else host


def _write_tokens(folder: Path, generation: bytes) -> None:
    if generation:
        replace(folder / GENERATION, generation)


def _delete_shards(folder: Path) -> None:
    """Delete the shards that the new file replaces."""
    index = folder / INDEX
    if index.is_file():
        for shard in _shards(index):
            (folder / shard).unlink(missing_ok=True)
        index.unlink()


def _shards(index: Path) -> Iterator[str]:
    """Yield the files of an index, those of its own folder alone."""
    with contextlib.suppress(SSMError):
        found = read_json(index).get("weight_map")
        for name in set(found.values() if isinstance(found, dict) else ()):
            if isinstance(name, str) and name == os.path.basename(name) and name != WEIGHTS:
                yield name

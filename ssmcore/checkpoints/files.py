"""ssmcore's own checkpoint format: one safetensors file with dotted names and JSON metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from ssmcore._files import replace
from ssmcore.arrays import is_tree, leaves, nest
from ssmcore.errors import SSMError
from ssmcore.typing import Params

__all__ = [
    "FORMAT",
    "KEY",
    "VERSION",
    "flatten",
    "load",
    "metadata_of",
    "path_name",
    "save",
    "stored_config",
    "unflatten",
]

FORMAT = "ssmcore"
VERSION = 1
DTYPES = (
    "F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"
)  # fmt: skip
"""The dtypes, by their names in safetensors, that ``save`` writes and ``load`` reads."""
KEY = "ssmcore"  # the one entry of the safetensors metadata, a JSON object


def flatten(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays of a nested dict by dotted name.

    Parameters
    ----------
    params : nested mapping of arrays
        Keys are non-empty strings without dots.

    Returns
    -------
    dict of str to array

    Raises
    ------
    SSMError
        ``params`` is no mapping, a key is not a string, is empty or has a dot, or a mapping is
        empty: it could not be read back.

    Examples
    --------
    >>> flatten({"D": 1, "dt_proj": {"weight": 2, "bias": 3}})
    {'D': 1, 'dt_proj.weight': 2, 'dt_proj.bias': 3}
    """
    _check_names(params, "params")
    return dict(leaves(params))


def _check_mapping(where: str, given: object) -> None:
    if not is_tree(given):
        msg = f"{where} is {type(given).__name__} {given!r:.50}; expected a mapping"
        raise SSMError(msg)


def _check_names(tree: Mapping[str, Any], where: str) -> None:
    _check_mapping(where, tree)
    if not len(tree):
        msg = f"{where} is an empty mapping; expected at least one array"
        raise SSMError(msg)
    for key, value in tree.items():
        if not isinstance(key, str) or not key or "." in key:
            msg = f"{where} has key {key!r}; expected a non-empty string without dots"
            raise SSMError(msg)
        if is_tree(value):
            _check_names(value, f"{where}[{key!r}]")


def unflatten(flat: Mapping[str, Any]) -> Params:
    """Return the nested dict of arrays given by dotted name: the inverse of :func:`flatten`.

    Parameters
    ----------
    flat : mapping of str to array

    Returns
    -------
    nested dict

    Raises
    ------
    SSMError
        ``flat`` is no mapping from text, or a name is also the beginning of another, e.g. "a"
        beside "a.b".

    Examples
    --------
    >>> unflatten({"D": 1, "dt_proj.weight": 2, "dt_proj.bias": 3})
    {'D': 1, 'dt_proj': {'weight': 2, 'bias': 3}}
    """
    _check_mapping("flat", flat)
    odd = [name for name in flat if not isinstance(name, str)]
    if odd:
        msg = f"flat has key {odd[0]!r}; expected dotted names"
        raise SSMError(msg)
    return nest(flat.items())


def save(path: str | os.PathLike[str], layer_config: Mapping[str, Any], params: Params) -> None:
    """Write a layer to ``path``: parameters by dotted name, configuration as JSON metadata.

    Parameters
    ----------
    path : path
        The file; an existing one is replaced at once, or not at all.
    layer_config : mapping
        What is needed to build the layer again; JSON values only.
    params : nested mapping of real arrays
        Of any array library, with their dtypes; left as they are.

    Raises
    ------
    SSMError
        ``path`` is no path, the configuration is not JSON, a name or an array cannot be stored, or
        the file cannot be written.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "layer.safetensors"
    ...     save(file, {"model": "S5", "d_model": 2}, {"D": np.ones(2)})
    ...     load(file)
    ({'model': 'S5', 'd_model': 2}, {'D': array([1., 1.])})
    """
    file = path_name("save", path)
    metadata = metadata_of(layer_config)
    arrays = {name: _host(name, value) for name, value in flatten(params).items()}
    replace(file, serialize(arrays, metadata=metadata))


def metadata_of(layer_config: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of a file of ours; SSMError for a configuration that is not JSON."""
    _check_mapping("save: layer_config", layer_config)
    header = {"format": FORMAT, "version": VERSION, "config": dict(layer_config)}
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"save: layer_config is not JSON ({error}); expected numbers, strings, lists, dicts"
        raise SSMError(msg) from None
    if json.loads(text) != header:
        msg = (
            f"save: layer_config {dict(layer_config)!r} does not survive JSON; use lists, str keys"
        )
        raise SSMError(msg)
    return {KEY: text}


def path_name(owner: str, path: object) -> str:
    """Return ``path`` as text; SSMError where it is no path."""
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str):
        msg = f"{owner}: path is {type(path).__name__} {path!r:.50}; expected a path"
        raise SSMError(msg)
    return name


def _host(name: str, value: Any) -> np.ndarray:
    """Return ``value`` as a contiguous NumPy array of the same dtype."""
    if hasattr(value, "detach"):  # a tensor that may need a gradient
        value = value.detach().cpu()
    try:
        array = np.ascontiguousarray(np.asarray(value)).reshape(np.shape(value))
    except (TypeError, ValueError, RuntimeError) as error:
        msg = f"save: {name} cannot be turned into a NumPy array ({error}); convert it first"
        raise SSMError(msg) from None
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        msg = f"save: {name} has dtype {array.dtype}; expected real numbers of up to 64 bits"
        raise SSMError(msg)
    return array


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Params]:
    """Read a layer written by :func:`save`.

    Parameters
    ----------
    path : path

    Returns
    -------
    config : dict
        The ``layer_config`` given to :func:`save`.
    params : nested dict of NumPy arrays
        In the dtypes stored.

    Raises
    ------
    SSMError
        Not a path, no such file, not a safetensors file, a truncated one, one of another program,
        or one with dtypes that NumPy has not, such as bfloat16.

    Examples
    --------
    >>> load("nowhere.safetensors")
    Traceback (most recent call last):
      ...
    ssmcore.errors.SSMError: no file 'nowhere.safetensors'; expected one written by ...
    """
    name = path_name("load", path)
    if not os.path.isfile(name):
        msg = f"no file {name!r}; expected one written by ssmcore.checkpoints.save"
        raise SSMError(msg)
    try:
        with safe_open(name, framework="numpy") as file:
            config = stored_config(name, file.metadata() or {})
            flat = {key: _tensor(name, file, key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:
        msg = (
            f"{name!r} is truncated or not a safetensors file ({error}, "
            f"{os.path.getsize(name)} bytes); expected one written by ssmcore.checkpoints.save: "
            "copy it again"
        )
        raise SSMError(msg) from None
    return config, unflatten(flat)


def _tensor(name: str, file: Any, key: str) -> np.ndarray:
    """Return one array of an open file, after checking that NumPy has its dtype."""
    dtype = file.get_slice(key).get_dtype()
    if dtype not in DTYPES:
        msg = (
            f"{name!r} has {key} in dtype {dtype}; expected one of {', '.join(DTYPES)}: save it "
            "again in one of those"
        )
        raise SSMError(msg)
    array: np.ndarray = file.get_tensor(key)
    return array


def stored_config(name: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the layer configuration, after checking that the file is ours and of this version."""
    try:
        header = json.loads(metadata[KEY])
        ours = header["format"] == FORMAT
        version, config = header["version"], dict(header["config"])
    except (KeyError, TypeError, ValueError):
        ours = False
    if not ours:
        msg = (
            f"{name!r} is a safetensors file without ssmcore metadata (found "
            f"{sorted(metadata)}); expected one written by ssmcore.checkpoints.save: for other "
            "programs' files use the readers in ssmcore.checkpoints"
        )
        raise SSMError(msg)
    if version != VERSION:
        msg = f"{name!r} has format version {version}; expected {VERSION}: update ssmcore"
        raise SSMError(msg)
    return config

"""ssmcore's own checkpoint format: one safetensors file with dotted names and JSON metadata."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from ssmcore.arrays import is_tree, leaves
from ssmcore.errors import SSMError
from ssmcore.typing import Params

__all__ = ["FORMAT", "VERSION", "flatten", "load", "save", "unflatten"]

FORMAT = "ssmcore"
VERSION = 1
_KEY = "ssmcore"  # the one entry of the safetensors metadata, a JSON object


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
    nested: Params = {}
    for name, value in flat.items():
        *parents, last = name.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or last in node:
            msg = f"name {name!r} clashes with another; expected a name to be array or group"
            raise SSMError(msg)
        node[last] = value
    return nested


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
    file = _file_name("save", path)
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
    arrays = {name: _host(name, value) for name, value in flatten(params).items()}
    _replace(Path(file), serialize(arrays, metadata={_KEY: text}))


def _file_name(owner: str, path: object) -> str:
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str):
        msg = f"{owner}: path is {type(path).__name__} {path!r:.50}; expected the path of a file"
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
    if array.dtype.kind not in "fiub":
        msg = f"save: {name} has dtype {array.dtype}; expected real numbers"
        raise SSMError(msg)
    return array


def _replace(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary file beside ``path``, then rename it."""
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        msg = f"cannot write {str(path)!r}: {error.strerror}; expected a file in a writable folder"
        raise SSMError(msg) from None


def _mode(path: Path) -> int:
    """Return the permissions of ``path``, or those a new file would get."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


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
        Not a path, no such file, not a safetensors file, a truncated one, or one of another
        program.

    Examples
    --------
    >>> load("nowhere.safetensors")
    Traceback (most recent call last):
      ...
    ssmcore.errors.SSMError: no file 'nowhere.safetensors'; expected one written by ...
    """
    name = _file_name("load", path)
    if not os.path.isfile(name):
        msg = f"no file {name!r}; expected one written by ssmcore.save"
        raise SSMError(msg)
    try:
        with safe_open(name, framework="numpy") as file:
            config = _config(name, file.metadata() or {})
            flat = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:
        msg = (
            f"{name!r} is truncated or not a safetensors file ({error}, "
            f"{os.path.getsize(name)} bytes); expected one written by ssmcore.save: copy it again"
        )
        raise SSMError(msg) from None
    return config, unflatten(flat)


def _config(name: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the layer configuration, after checking that the file is ours and of this version."""
    try:
        header = json.loads(metadata[_KEY])
        ours = header["format"] == FORMAT
        version, config = header["version"], dict(header["config"])
    except (KeyError, TypeError, ValueError):
        ours = False
    if not ours:
        msg = (
            f"{name!r} is a safetensors file without ssmcore metadata (found "
            f"{sorted(metadata)}); expected one written by ssmcore.save: for other programs' "
            "files use the readers in ssmcore.checkpoints"
        )
        raise SSMError(msg)
    if version != VERSION:
        msg = f"{name!r} has format version {version}; expected {VERSION}: update ssmcore"
        raise SSMError(msg)
    return config

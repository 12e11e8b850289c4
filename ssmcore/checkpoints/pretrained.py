"""Whole models in folders: ssmcore's own, transformers' and mamba_ssm's."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssmcore import backend as backends
from ssmcore._checks import HALF
from ssmcore._transfer import transfer
from ssmcore.arrays import nest
from ssmcore.checkpoints.files import path_name
from ssmcore.checkpoints.folders import Found, open_folder
from ssmcore.checkpoints.tensors import FLOATS, Stored, read
from ssmcore.composition import flattened
from ssmcore.errors import SSMError, check_choice, nearest
from ssmcore.module import Module
from ssmcore.typing import Params

__all__ = ["load_pretrained", "stored_dtype"]

DTYPES = ("float32", "float64", "bfloat16", "float16")


def load_pretrained(
    path: str | os.PathLike[str],
    *,
    backend: str | None = None,
    device: Any = None,
    dtype: str | None = None,
) -> tuple[Module, Params]:
    """Read a whole model: its configuration, and its weights straight to the device.

    Parameters
    ----------
    path : path
        A folder written by transformers (``model_type`` "mamba" or "recurrent_gemma"), by mamba_ssm
        (with its weights as safetensors), or by ``save_pretrained``; or a file of the latter.
    backend : name of a backend; None means the default (SSMCORE_BACKEND, else "numpy")
    device : in the library's own terms; None means its default
    dtype : "float32", "float64", "bfloat16", "float16" or None
        None: float64 where the weights are, else float32. In half precision are only the weights
        of products and embeddings; everything else is float32 beside them.

    Returns
    -------
    model : Module
    params : nested dict of arrays

    Raises
    ------
    SSMError
        No checkpoint there, or a pickled one; an unknown architecture or field of its
        configuration; a truncated file; tensors that are missing, unexpected, misshapen or not
        finite; a dtype that the library has not.

    Notes
    -----
    Files are mapped into memory and read tensor by tensor: beside the parameters themselves one
    tensor lies on the host. Nothing is unpickled, and no file outside the folder is read.

    Examples
    --------
    >>> import tempfile
    >>> from ssmcore import networks
    >>> from ssmcore.checkpoints import load_pretrained, save_pretrained
    >>> model = networks.mamba(16, 8, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_pretrained(folder, model, model.init(0), layout="transformers")
    ...     loaded, params = load_pretrained(folder)
    >>> loaded.n_layers, params["embedding"]["weight"].shape
    (2, (16, 8))
    """
    if dtype is not None:
        check_choice("load_pretrained", "dtype", dtype, DTYPES)
    target = backends.load(backend or backends.default())
    found = open_folder(Path(path_name("load_pretrained", path)))
    shapes = flattened(found.model.shapes())
    _check_tensors(found, shapes)
    wide, narrow = _dtypes(found, dtype)
    loose = found.model._loose()
    host = backends.load("numpy")
    pairs = []
    for name, place in found.places.items():
        values = found.restored(name, _finite(place, found.tensors[place]))
        kind = narrow if name in loose else wide
        moved = transfer(np.ascontiguousarray(values), host, target, device, kind)
        backends.of(moved)
        pairs.append((name, moved))
    return found.model, nest(pairs)


def stored_dtype(path: str | os.PathLike[str]) -> str:
    """Return the dtype of the largest tensor of a checkpoint, such as "bfloat16"."""
    found = open_folder(Path(path_name("stored_dtype", path)))
    stored = max(found.tensors.values(), key=lambda x: math.prod(x.shape))
    check_choice(found.where, "dtype of the largest tensor", stored.dtype, FLOATS)
    return FLOATS[stored.dtype]


def _dtypes(found: Found, dtype: str | None) -> tuple[str, str]:
    """Return the dtype of most parameters, and that of the weights of products."""
    if dtype is None:
        wide = any(found.tensors[place].dtype == "F64" for place in found.places.values())
        dtype = "float64" if wide else "float32"
    return ("float32" if dtype in HALF else dtype), dtype


def _check_tensors(found: Found, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise SSMError unless exactly the tensors of the model are there, in its shapes."""
    tensors = found.tensors
    missing = [place for place in found.places.values() if place not in tensors]
    extra = sorted(set(tensors) - set(found.places.values()))
    if missing:
        msg = (
            f"{found.where}: {len(missing)} tensors are missing, first {missing[0]!r}; "
            f"{len(extra)} are unexpected{nearest(missing[0], extra)}"
        )
        raise SSMError(msg)
    for name, place in found.places.items():
        stored, expected = tensors[place], found.stored_shape(name, shapes[name])
        if stored.shape != expected:
            msg = (
                f"{str(stored.file)!r}: {place} has shape {stored.shape}; expected {expected} "
                "by the configuration"
            )
            raise SSMError(msg)
        if stored.dtype not in FLOATS:
            msg = (
                f"{str(stored.file)!r}: {place} has dtype {stored.dtype}; expected one of "
                f"{', '.join(FLOATS)} (quantised weights are not read)"
            )
            raise SSMError(msg)
    for place in extra:
        _check_extra(found, place)


def _check_extra(found: Found, place: str) -> None:
    """A second copy of a tied tensor is fine; everything else is not."""
    original = found.copies.get(place)
    stored = found.tensors[place]
    if original is None:
        msg = (
            f"{str(stored.file)!r}: unexpected tensor {place}; expected those of the "
            f"configuration alone{nearest(place, found.places.values())}"
        )
        raise SSMError(msg)
    first = found.tensors[original]
    if first[1:3] != stored[1:3] or not np.array_equal(read(first), read(stored)):
        msg = (
            f"{str(stored.file)!r}: {place} differs from {original}, and the configuration ties "
            "them; expected equal ones, or a configuration that does not"
        )
        raise SSMError(msg)


def _finite(place: str, stored: Stored) -> np.ndarray[Any, Any]:
    """Return the values of a tensor; SSMError where one is NaN or infinite."""
    values = read(stored)
    with np.errstate(invalid="ignore"):
        ends = (values.min(), values.max()) if values.size else (0.0, 0.0)
    if not np.isfinite(ends).all():
        at = np.unravel_index(int(np.argmin(np.isfinite(values))), values.shape)
        msg = (
            f"{str(stored.file)!r}: {place} holds {values[at]} at {tuple(map(int, at))}; "
            "expected finite numbers"
        )
        raise SSMError(msg)
    return values

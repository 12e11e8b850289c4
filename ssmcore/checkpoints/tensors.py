"""Tensors in safetensors files: mapped into memory, checked before anything is allocated.

NumPy has no bfloat16: its bits are the upper half of a float32, and are converted as such.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from ssmcore._files import replace_by
from ssmcore.errors import SSMError

__all__ = ["FLOATS", "Stored", "from_bits", "header_of", "read", "to_bits", "write"]

FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The dtypes of weights, by their names in safetensors."""
_INTEGERS = {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "BOOL": "bool"}
_INTEGERS |= {"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8"}
_NAMES = FLOATS | _INTEGERS
_CODES = {name: code for code, name in _NAMES.items()}
_NUMPY = {code: np.dtype("uint16" if code == "BF16" else name) for code, name in _NAMES.items()}


class Stored(NamedTuple):
    """Where a tensor lies: ``dtype`` as safetensors names it, ``offset`` in bytes of ``file``."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


def header_of(file: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """Return the tensors that ``file`` holds and its metadata; nothing of their size is allocated.

    Raises SSMError unless sizes, dtypes and the length of the file agree with its header.
    """
    try:
        with safe_open(file, framework="numpy") as opened:  # checks offsets and sizes
            metadata = dict(opened.metadata() or {})
        with file.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            header = json.loads(raw.read(length))
    except (SafetensorError, OSError, TypeError, ValueError, RecursionError) as error:
        raise _unreadable(file, error) from None
    header.pop("__metadata__", None)
    start = 8 + length
    found = {
        name: Stored(file, x["dtype"], tuple(x["shape"]), start + x["data_offsets"][0])
        for name, x in header.items()
    }
    for name, stored in found.items():
        if stored.dtype not in _NUMPY:
            msg = (
                f"{str(file)!r} has {name} in dtype {stored.dtype}; expected one of "
                f"{', '.join(_NUMPY)}"
            )
            raise SSMError(msg)
    return found, metadata


def _unreadable(file: Path, error: Exception) -> SSMError:
    size = file.stat().st_size if file.is_file() else 0
    with file.open("rb") if file.is_file() else open(os.devnull, "rb") as raw:
        pointer = raw.read(40).startswith(b"version https://git-lfs")
    hint = "it is a pointer of git-lfs: run 'git lfs pull'" if pointer else "copy it again"
    msg = (
        f"{str(file)!r} is truncated or not a safetensors file ({error}, {size} bytes); "
        f"expected tensors up to its end: {hint}"
    )
    return SSMError(msg)


def read(stored: Stored) -> np.ndarray[Any, Any]:
    """Return a tensor, in the file's dtype where NumPy has it and bfloat16 as float32.

    A view of the mapped file where no conversion is needed.
    """
    dtype = _NUMPY[stored.dtype]
    if 0 in stored.shape:
        mapped: np.ndarray[Any, Any] = np.zeros(stored.shape, dtype)
    else:
        mapped = np.memmap(
            stored.file,
            dtype=dtype.newbyteorder("<"),
            mode="r",
            offset=stored.offset,
            shape=stored.shape or (1,),
        ).view(np.ndarray)
    mapped = mapped.reshape(stored.shape)
    return from_bits(mapped) if stored.dtype == "BF16" else mapped


def from_bits(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the float32 numbers whose bfloat16 bits are given as uint16.

    Examples
    --------
    >>> import numpy as np
    >>> from_bits(np.asarray([0x3F80, 0xC000], dtype=np.uint16))
    array([ 1., -2.], dtype=float32)
    """
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bits(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the bfloat16 bits of finite ``x`` as uint16: the nearest number, ties to even.

    Examples
    --------
    >>> import numpy as np
    >>> [hex(n) for n in to_bits(np.asarray([1.0, 1.00390625, 1.01171875]))]
    ['0x3f80', '0x3f80', '0x3f82']
    """
    wide = np.asarray(x, dtype=np.float32).view(np.uint32)
    return ((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16).astype(np.uint16)


def write(
    path: str | os.PathLike[str],
    tensors: Iterable[tuple[str, str, tuple[int, ...], Callable[[], np.ndarray[Any, Any]]]],
    metadata: Mapping[str, str],
) -> None:
    """Write (name, dtype, shape, values) to ``path``, one tensor at a time; whole or not at all.

    ``dtype`` is a name such as "float32" or "bfloat16"; ``values()`` gives the array. Raises
    SSMError for numbers that are not finite in that dtype.
    """
    tensors = list(tensors)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, dtype, shape, _ in tensors:
        code = _CODES[dtype]
        begin, end = end, end + math.prod(shape) * _NUMPY[code].itemsize
        header[name] = {"dtype": code, "shape": shape, "data_offsets": (begin, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    def fill(file: IO[bytes]) -> None:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, dtype, _, values in tensors:
            array = values()
            with np.errstate(over="ignore"):
                kept = to_bits(array) if dtype == "bfloat16" else array.astype(dtype, copy=False)
            _check_written(path, name, array, kept, dtype)
            array = kept
            file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)

    replace_by(path, fill)


def _check_written(
    path: str | os.PathLike[str],
    name: str,
    given: np.ndarray[Any, Any],
    kept: np.ndarray[Any, Any],
    dtype: str,
) -> None:
    """Raise SSMError for numbers that ``load_pretrained`` would refuse: the old file stays."""
    back = from_bits(kept) if dtype == "bfloat16" else kept
    with np.errstate(invalid="ignore"):
        ends = [f() for x in (given, back) if x.size for f in (x.min, x.max)]
        if np.isfinite(ends).all():
            return
    bad = ~(np.isfinite(given) & np.isfinite(back))
    at = np.unravel_index(int(np.argmax(bad)), kept.shape)
    beyond = f", beyond {dtype}" if np.isfinite(given[at]) else ""
    msg = (
        f"{os.fspath(path)!r}: {name} holds {given[at]} at {tuple(map(int, at))}{beyond}; expected "
        "finite numbers: nothing is written"
    )
    raise SSMError(msg)

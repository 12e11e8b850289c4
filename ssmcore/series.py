"""Recorded series from files, and their use as input channels."""

from __future__ import annotations

import csv
import os
import wave
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ssmcore.errors import SSMError
from ssmcore.typing import Array

__all__ = ["as_channels", "as_numpy", "load"]

Series: TypeAlias = NDArray[np.float64]

SEPARATORS = {";": "semicolon", "\t": "tab"}

CHANNEL_DELAY = 37  # samples; prime, so that copies do not line up with powers of two


def load(path: str | Path) -> Series:
    """Read a series from a .npy, .csv or .wav file.

    Parameters
    ----------
    path : str or Path
        ``.npy``: (L,) or (L, channels), integers or floats. ``.csv``: a row of numbers a sample,
        comma separated, UTF-8, with at most one header line, and no column of times (named
        time... or date...): samples are one step apart. ``.wav``: PCM of 8, 16, 24 or 32 bit.

    Returns
    -------
    ndarray (L, channels) float64
        The values as stored; PCM divided by its full scale, so in [-1, 1).

    Raises
    ------
    SSMError
        For no path, a file that is missing, of another kind, damaged or empty, and for values that
        are text, complex or not finite. The message says where.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from ssmcore import series
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "two_channels.csv"
    ...     _ = path.write_text("left,right\\n1,2\\n3,4.5\\n")
    ...     series.load(path)
    array([[1. , 2. ],
           [3. , 4.5]])
    """
    path = _path(path)
    readers = {".npy": _read_npy, ".csv": _read_csv, ".wav": _read_wav}
    suffix = path.suffix.lower()
    if suffix not in readers:
        msg = f"{path}: suffix is {path.suffix!r}; expected one of {', '.join(readers)}"
        raise SSMError(msg)
    if not os.path.isfile(path):
        msg = f"{path}: there is no such file; check the path"
        raise SSMError(msg)
    return _checked(str(path), readers[suffix](path))


def _path(given: object) -> Path:
    if not isinstance(given, str | os.PathLike):
        msg = f"load: path is {type(given).__name__} {given!r:.50}; expected the path of a file"
        raise SSMError(msg)
    return Path(given)


def _checked(owner: str, values: Series) -> Series:
    if values.size == 0:
        msg = f"{owner}: there are no values; expected at least one sample"
        raise SSMError(msg)
    bad = np.argwhere(~np.isfinite(values))
    if bad.size:
        row, column = bad[0].tolist()
        msg = (
            f"{owner}: {len(bad)} of {values.size} values are not finite, the first one, "
            f"{values[row, column]}, at index ({row}, {column}); remove or fill them"
        )
        raise SSMError(msg)
    return values


def _read_npy(path: Path) -> Series:
    try:
        with path.open("rb") as file:
            values: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        msg = f"{path}: not a readable .npy file of numbers, or cut off ({error})"
        raise SSMError(msg) from error
    if values.dtype.kind not in "iuf":
        msg = f"{path}: dtype is {values.dtype}; expected real integers or floats"
        raise SSMError(msg)
    if values.ndim not in (1, 2):
        msg = f"{path}: shape is {values.shape}; expected (L,) or (L, channels)"
        raise SSMError(msg)
    numbers = values.astype(np.float64)
    return numbers[:, None] if numbers.ndim == 1 else numbers


def _read_csv(path: Path) -> Series:
    rows: list[list[float]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            filled = (row for row in reader if row)
            for index, row in enumerate(filled):
                if index == 0 and not any(_is_number(field) for field in row):
                    _check_header(path, reader.line_num, row)
                    continue
                rows.append(_numbers(path, reader.line_num, row))
                if len(row) != len(rows[0]):
                    msg = (
                        f"{path}, line {reader.line_num}: {len(row)} columns; "
                        f"expected {len(rows[0])}, as in the lines before"
                    )
                    raise SSMError(msg)
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{path}: not a readable .csv file in UTF-8 ({error})"
        raise SSMError(msg) from error
    return np.array(rows, dtype=np.float64)


def _check_header(path: Path, line: int, row: list[str]) -> None:
    """Raise SSMError for another separator, and for times, which would pass for a channel."""
    for column, field in enumerate(row, start=1):
        where = f"{path}, line {line}, column {column}: {field!r}"
        if _separator_hint(field):
            msg = f"{where} is no number and no name of a column{_separator_hint(field)}"
            raise SSMError(msg)
        if field.strip().lower().startswith(("time", "date")):
            msg = (
                f"{where} is no channel; expected samples one step apart, without their times: "
                "remove the column"
            )
            raise SSMError(msg)


def _separator_hint(field: str) -> str:
    marks = [name for mark, name in SEPARATORS.items() if mark in field]
    return f"; is the file {marks[0]} separated? expected commas" if marks else ""


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field  # Python reads 1_000 as a number; a file does not mean that


def _numbers(path: Path, line: int, row: list[str]) -> list[float]:
    for column, field in enumerate(row, start=1):
        if not _is_number(field):
            where = f"{path}, line {line}, column {column}"
            msg = f"{where}: {field!r} is not a number; remove or fill{_separator_hint(field)}"
            raise SSMError(msg)
    return [float(field) for field in row]


def _read_wav(path: Path) -> Series:
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, frames = file.getsampwidth(), file.getnchannels(), file.getnframes()
            raw = file.readframes(frames)
    except (wave.Error, EOFError, OSError) as error:
        msg = f"{path}: not a readable PCM .wav file ({str(error) or 'it ends too early'})"
        raise SSMError(msg) from error
    if width not in (1, 2, 3, 4):
        msg = f"{path}: {8 * width} bit PCM; expected 8, 16, 24 or 32 bit"
        raise SSMError(msg)
    if len(raw) != frames * channels * width:
        msg = (
            f"{path}: {frames} frames announced, {len(raw) // (channels * width)} present; cut off"
        )
        raise SSMError(msg)
    return (_pcm(raw, width) / 2.0 ** (8 * width - 1)).reshape(frames, channels)


def _pcm(raw: bytes, width: int) -> Series:
    """Little-endian integers; 8 bit is unsigned around 128."""
    if width == 1:
        return np.frombuffer(raw, np.uint8).astype(np.float64) - 128
    samples = np.frombuffer(raw, np.uint8).reshape(-1, width)
    padded = np.zeros((len(samples), 4), np.uint8)
    padded[:, 4 - width :] = samples  # into the high bytes: the sign bit is the sign bit
    return (padded.view("<i4")[:, 0] >> (32 - 8 * width)).astype(np.float64)


def as_channels(series: Array, channels: int) -> Series:
    """Spread a series over ``channels`` input channels, standardised and delayed.

    u[t, h] = x[(t - 37 (h // c)) mod L, h mod c],  x = (series - mean) / standard deviation

    Parameters
    ----------
    series : array (L, c) real
    channels : int
        H.

    Returns
    -------
    ndarray (L, H) float64
        Zero mean, unit variance a channel; a constant column gives zeros.

    Raises
    ------
    SSMError
        When ``series`` is not a finite real (L, c) array with L, c >= 1, or ``channels`` < 1.

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore import series
    >>> u = series.as_channels(np.arange(100.0)[:, None], 2)
    >>> u.shape, bool(u[37, 1] == u[0, 0])
    ((100, 2), True)
    """
    values = as_numpy("as_channels", series)
    if values.dtype.kind not in "iuf" or values.ndim != 2 or values.size == 0:
        msg = (
            f"as_channels: series is {values.dtype} {values.shape}; expected real (L, c), not empty"
        )
        raise SSMError(msg)
    if isinstance(channels, bool) or not isinstance(channels, int | np.integer) or channels < 1:
        msg = f"as_channels: channels is {channels!r}; expected a positive integer"
        raise SSMError(msg)
    x = _standardized(_checked("as_channels", values.astype(np.float64)))
    columns = x.shape[1]
    return np.stack(
        [np.roll(x[:, h % columns], CHANNEL_DELAY * (h // columns)) for h in range(channels)],
        axis=1,
    )


def as_numpy(owner: str, series: Array) -> NDArray[Any]:
    """Return ``series`` as a NumPy array; SSMError for what cannot be one."""
    try:
        return np.asarray(series.detach() if hasattr(series, "detach") else series)
    except (RuntimeError, TypeError, ValueError) as error:
        msg = f"{owner}: series is {type(series).__name__} ({error}); expected a NumPy array"
        raise SSMError(msg) from error


def _standardized(values: Series) -> Series:
    constant = values.max(axis=0) == values.min(axis=0)
    peak = np.where(constant, 1.0, np.abs(values).max(axis=0))
    scaled = values / peak  # within [-1, 1]: the squares cannot overflow
    centred = np.where(constant, 0.0, scaled - scaled.mean(axis=0))
    return centred / np.where(constant, 1.0, centred.std(axis=0))

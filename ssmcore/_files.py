"""A safe way to the disk: whole files or none, and one SSMError where none can be."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ssmcore.errors import SSMError

__all__ = ["check_writable", "replace", "replace_by"]


def check_writable(path: str | Path | None) -> None:
    """Raise SSMError where no file can be written, before any work is done for it."""
    if path is None:
        return
    handle, temporary = _temporary(Path(path))
    os.close(handle)
    Path(temporary).unlink()


def replace(path: str | Path, content: bytes) -> None:
    """Write ``content`` to ``path``, wholly or not at all; SSMError where that fails."""
    replace_by(path, lambda file: file.write(content))


def replace_by(path: str | os.PathLike[str], fill: Callable[[IO[bytes]], object]) -> None:
    """Write to ``path`` what ``fill(file)`` writes, wholly or not at all."""
    target = Path(path)
    handle, temporary = _temporary(target)
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(_mode(target))
        Path(temporary).replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        if isinstance(error, OSError):
            raise _refusal(target, error) from None
        raise


def _temporary(target: Path) -> tuple[int, str]:
    """Return handle and name of a new file beside ``target``."""
    try:
        if target.exists() and not target.is_file():
            raise OSError(errno.EEXIST, "what is there is no file")
        return tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _refusal(target, error) from None


def _refusal(target: Path, error: OSError | ValueError) -> SSMError:
    reason = getattr(error, "strerror", None) or error
    msg = (
        f"{str(target)!r}: cannot write a file there ({reason}); expected a file name in a "
        "writable folder"
    )
    return SSMError(msg)


def _mode(target: Path) -> int:
    """Return the permissions of ``target``, or those a new file would get."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask

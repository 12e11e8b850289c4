"""A safe way to the disk: whole files or none, and one SSMError where none can be.

A file is written under a hidden name beside its own. Its writer holds a lock on it, which ends with
the process, however that ends: what nobody holds any more is deleted by the next writer there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ssmcore.errors import SSMError

__all__ = ["check_writable", "replace", "replace_by"]

ENDING = ".ssmcore"
OURS = re.compile(r"\..+\.[a-z0-9_]{8}\.ssmcore")


def _locks() -> Any:
    """Return the module with file locks, None on Windows."""
    try:
        import fcntl
    except ImportError:
        return None
    return fcntl


FCNTL = _locks()


def check_writable(path: str | Path | None) -> None:
    """Raise SSMError where no file can be written, before any work is done for it."""
    if path is None:
        return
    handle, temporary = _temporary(Path(path))
    os.close(handle)
    Path(temporary).unlink(missing_ok=True)


def replace(path: str | Path, content: bytes) -> None:
    """Write ``content`` to ``path``, wholly or not at all; SSMError where that fails."""
    replace_by(path, lambda file: file.write(content))


def replace_by(path: str | os.PathLike[str], fill: Callable[[IO[bytes]], object]) -> None:
    """Write to ``path`` what ``fill(file)`` writes, wholly or not at all."""
    target = Path(path)
    handle, temporary = _temporary(target)
    try:
        with _lock_of(handle):
            with os.fdopen(handle, "wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(_mode(target))
            Path(temporary).replace(target)
        _delete_orphans(target.parent)
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
        while True:
            made = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=ENDING)
            if _lock(made[0], wait=True) is not True or Path(made[1]).exists():
                return made
            os.close(made[0])  # taken for an orphan before it was locked
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _refusal(target, error) from None


def _lock(handle: int, *, wait: bool) -> bool | None:
    """Take the lock of a file, for as long as it is open anywhere; None where there are none."""
    if FCNTL is None:
        return None
    try:
        FCNTL.flock(handle, FCNTL.LOCK_EX | (0 if wait else FCNTL.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


@contextlib.contextmanager
def _lock_of(handle: int) -> Iterator[None]:
    """Keep the lock of a file when it is closed."""
    if FCNTL is None:
        yield
        return
    again = os.dup(handle)
    try:
        yield
    finally:
        os.close(again)


def _delete_orphans(folder: Path) -> None:
    """Delete what writers have left that were killed, where locks tell them from those at work."""
    with contextlib.suppress(OSError):
        for name in filter(OURS.fullmatch, os.listdir(folder)):
            with contextlib.suppress(OSError):
                _delete_orphan(folder / name)


def _delete_orphan(file: Path) -> None:
    handle = os.open(file, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        if _lock(handle, wait=False):
            file.unlink()
    finally:
        os.close(handle)


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

"""What every machine-readable report needs: where it was made, and a safe way to the disk."""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssmcore import backend
from ssmcore.errors import SSMError

__all__ = ["check_writable", "environment", "unusable", "write_json", "write_text"]


def unusable(name: str) -> str | None:
    """Return why installed backend ``name`` cannot be used now, or None when it can."""
    try:
        found = backend.load(name).devices()
    except Exception as error:  # whatever a broken or device-less library raises
        return first_line(error)
    return None if found else "no device answers"


def first_line(error: Exception) -> str:
    """Return type and first line of an exception's message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def environment(names: list[str]) -> dict[str, Any]:
    """Return versions, platform and devices of this process, for backends ``names``."""
    import ssmcore

    libraries = {}
    for name in names:
        owner = backend.load(name)
        libraries[name] = {"version": owner.version(), "devices": owner.devices()}
    return {
        "ssmcore": ssmcore.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "backends": libraries,
    }


def check_writable(path: str | Path | None) -> None:
    """Raise SSMError where no file can be written, before any work is done for it."""
    if path is None:
        return
    path = Path(path)
    odd = path.exists() and not path.is_file()
    if odd or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        msg = f"{path}: cannot write a file there; expected a file name in a writable folder"
        raise SSMError(msg)


def write_json(path: str | Path, report: Mapping[str, Any]) -> None:
    """Write ``report`` as strict JSON, wholly or not at all."""
    text = json.dumps(_strict(report), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` in UTF-8, wholly or not at all."""
    check_writable(path)
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)  # as open() would have made it
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _strict(value: Any) -> Any:
    """Return ``value`` with NaN and infinities as text, which JSON has no numbers for."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value

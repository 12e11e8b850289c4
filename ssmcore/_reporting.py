"""What every machine-readable report needs: where it was made, and a safe way to the disk."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssmcore import backend
from ssmcore._arguments import plain
from ssmcore._files import check_writable, replace

__all__ = ["check_writable", "environment", "unusable", "write_json", "write_text"]


def unusable(name: str) -> str | None:
    """Return why installed backend ``name`` cannot be used now, or None when it can."""
    try:
        owner = backend.load(name)
        found, _ = owner.devices(), owner.version()
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


def write_json(path: str | Path, report: Mapping[str, Any]) -> None:
    """Write ``report`` as strict JSON, wholly or not at all."""
    text = json.dumps(_strict(report), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` in UTF-8, wholly or not at all."""
    replace(path, text.encode())


def _strict(value: Any) -> Any:
    """Return ``value`` with NaN and infinities as text, which JSON has no numbers for."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return plain(value)

"""The one exception that ssmcore raises for input it cannot accept."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["SSMError", "check_choice", "nearest"]


class SSMError(ValueError):
    """Input that ssmcore cannot accept: says what was given, what was expected, what to do.

    It is raised before any work is done, and inputs are left as they were.

    Examples
    --------
    >>> import ssmcore as ssm
    >>> ssm.S4D(d_model=4, initialization="leggs")
    Traceback (most recent call last):
      ...
    ssmcore.errors.SSMError: S4D: initialization is 'leggs'; ...; did you mean 'legs'?
    """


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the end of a message that points to the closest of ``names``, or nothing.

    Examples
    --------
    >>> nearest("kernel.inv_td", ["kernel.inv_dt", "kernel.C"])
    "; did you mean 'kernel.inv_dt'?"
    """
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_choice(owner: str, option: str, value: object, choices: Iterable[str]) -> None:
    """Raise SSMError, with the nearest valid name, unless ``value`` is one of ``choices``."""
    names = list(choices)
    if isinstance(value, str) and value in names:
        return
    expected = ", ".join(repr(name) for name in names)
    hint = nearest(str(value), names)
    msg = f"{owner}: {option} is {value!r:.50}; expected one of {expected}{hint}"
    raise SSMError(msg)

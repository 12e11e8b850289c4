"""The one exception that ssmcore raises for input it cannot accept."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["SSMError", "check_choice"]


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


def check_choice(owner: str, option: str, value: object, choices: Iterable[str]) -> None:
    """Raise SSMError, with the nearest valid name, unless ``value`` is one of ``choices``."""
    names = list(choices)
    if value in names:
        return
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    expected = ", ".join(repr(name) for name in names)
    msg = f"{owner}: {option} is {value!r}; expected one of {expected}{hint}"
    raise SSMError(msg)

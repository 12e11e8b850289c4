"""The ledger of known failures: one TOML file per backend, each entry with its reason.

    [[failure]]
    test = "test_linear_scan.py::test_value[13-example]"
    reason = "the library's cumulative product is wrong for 13 elements"
    link = "https://example.org/issues/1"

``test`` is the file and the rest of the test's id; ``*`` and ``?`` stand for any characters. The
file's name is the backend's: ``example.toml``. A backend may ship its own and name it in an
attribute ``ledger``; ``--ssm-ledger FILE`` adds another.

The tests of an entry are expected to fail. An entry whose tests pass or are skipped fails the run,
and so does one that matches no test of a module that was collected for the backend. A file for a
backend that is not tested is refused.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssmcore import backend
from ssmcore.errors import SSMError, check_choice

__all__ = ["SHIPPED", "Entry", "of_backends", "read"]

HERE = Path(__file__).resolve().parent
SHIPPED = HERE / "ledgers"
FIELDS = ("test", "reason", "link")


@dataclass(frozen=True)
class Entry:
    """A known failure of one backend."""

    file: str
    backend: str
    test: str
    reason: str
    link: str

    @property
    def module(self) -> str:
        """The file of the tests it speaks of."""
        return self.test.partition("::")[0]

    def matches(self, test: str, backend: str) -> bool:
        """Whether it speaks of ``test`` on ``backend``; "" is a test of no one backend."""
        pattern = self.test.replace("[", "[[]")  # brackets are part of a test's id
        return backend in ("", self.backend) and fnmatch.fnmatchcase(test, pattern)

    def __str__(self) -> str:
        return f"{self.file}: {self.test}: {self.reason} ({self.link})"


def read(path: str | Path) -> list[Entry]:
    """Return the entries of a file; SSMError where it is no ledger."""
    path = Path(path)
    check_choice(str(path), "backend (the file's name)", path.stem, backend.names())
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path}: {error}; expected a ledger in TOML"
        raise SSMError(msg) from error
    found = content.pop("failure", [])
    if content or not isinstance(found, list):
        msg = f"{path}: holds {sorted(content) or 'failure'}; expected [[failure]] tables only"
        raise SSMError(msg)
    return [_entry(path, k, fields) for k, fields in enumerate(found, start=1)]


def _entry(path: Path, number: int, fields: Any) -> Entry:
    valid = isinstance(fields, dict) and set(fields) == set(FIELDS)
    if not valid or not all(isinstance(x, str) and x.strip() for x in fields.values()):
        msg = f"{path}: failure {number} is {fields!r:.200}; expected {', '.join(FIELDS)} as text"
        raise SSMError(msg)
    entry = Entry(path.name, path.stem, **fields)
    if "::" not in entry.test:
        msg = f"{path}: test is {entry.test!r}; expected <module>.py::<test>"
        raise SSMError(msg)
    modules = sorted(file.name for file in HERE.glob("test_*.py"))
    check_choice(str(path), "the module of a test", entry.module, modules)
    return entry


def of_backends(names: Iterable[str], given: Iterable[str | Path]) -> list[Entry]:
    """Return the entries for backends ``names``: shipped, their own, and of the files ``given``.

    SSMError where a file is no ledger, or that of another backend.
    """
    names, asked = list(names), [Path(path) for path in given]
    files = [SHIPPED / f"{name}.toml" for name in names]
    files = [path for path in files if path.is_file()]
    own = [backend.load(name).ledger for name in names]
    files += [Path(path) for path in own if path is not None]
    entries = [entry for path in [*files, *asked] for entry in read(path)]
    for path in asked:
        if path.stem not in names:
            msg = f"{path}: is named after {path.stem!r}; the backends tested are {names}"
            raise SSMError(msg)
    return entries

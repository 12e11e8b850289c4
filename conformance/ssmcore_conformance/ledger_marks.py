"""The ledger at work: tests that are expected to fail, and entries that match no test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssmcore_conformance.ledger import Entry
from ssmcore_conformance.recording import backend_of, is_ours, name_of

__all__ = ["ENTRY", "mark", "stale"]

ENTRY = pytest.StashKey[Entry]()


class Stale(pytest.Item):
    """Fails for an entry that matches no test."""

    entry: Entry

    def runtest(self) -> None:
        """Fail."""
        msg = f"{self.entry}: matches no test of {self.entry.module}; correct or remove the entry"
        raise LookupError(msg)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """Return the message alone."""
        return str(excinfo.value.args[0])

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return where pytest says it is."""
        return self.path, None, self.name


def mark(items: list[pytest.Item], entries: list[Entry]) -> set[Entry]:
    """Expect the tests of the entries to fail; return the entries that have any."""
    used = set()
    for item in filter(is_ours, items):
        for entry in entries:
            if entry.matches(name_of(item), backend_of(item)):
                used.add(entry)
                item.stash[ENTRY] = entry
                item.add_marker(pytest.mark.xfail(strict=True, reason=str(entry)))
    return used


def stale(items: list[pytest.Item], entries: list[Entry], used: set[Entry]) -> list[pytest.Item]:
    """Return a failing test for each entry whose module was collected for its backend in vain."""
    found: list[pytest.Item] = []
    for entry in entries:
        module = _module(items, entry)
        if module is not None and entry not in used:
            name = f"ledger {entry.file}: {entry.test}"
            item = Stale.from_parent(module, name=name)
            item.entry = entry
            found.append(item)
    return found


def _module(items: list[pytest.Item], entry: Entry) -> Any:
    """Return the collected module of an entry, or None."""
    for item in filter(is_ours, items):
        if item.path.name == entry.module and backend_of(item) in ("", entry.backend):
            return item.getparent(pytest.Module)
    return None

"""From a row to its figures: first calls, equality, times in turn, memory, bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.work import Bar, MissingPeerError, Numbers, Row, Work
from ssmcore.bench import memory
from ssmcore.bench.timing import Times, first_call, interleave, ratio

__all__ = ["measure"]

Progress = Callable[[str], None]


def measure(
    row: Row, *, quick: bool = False, seconds: float = 1.5, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Run a row and return its figures as nested dicts.

    Parameters
    ----------
    quick : small sizes and single calls, to see that everything runs; its figures mean nothing
    seconds : what one side may take
    progress : called with what is done now
    """
    progress("inputs")
    work = row.build(quick)
    progress("first call")
    results, first = first_call(work.ours)
    found = work.numpy(results)
    returned = sum(x.nbytes for x in found)
    progress("float64 reference")
    wanted = work.exact()
    errors = [_gap(x, y) for x, y in zip(found, wanted, strict=True)]
    del results, found
    sides, peers = _peers(work, wanted, progress)
    del wanted
    progress("timing")
    calls = {"ours": work.ours, **work.floors, **sides}
    for call in work.floors.values():
        call()
    times = interleave(
        calls,
        seconds=0.0 if quick else seconds,
        progress=lambda name, done, total: progress(f"timing {name}, {done} of {total}"),
    )
    progress("memory")
    grown = memory.peak(work.ours)
    ours = {
        **times["ours"].to_dict(),
        "first_call_s": first,
        "compile_s": max(0.0, first - times["ours"].median),
        "errors": errors,
        "tolerances": list(work.tolerances),
        "returned_bytes": returned,
        "extra_bytes": None if grown is None else max(0, grown - returned),
    }
    for name in sides:
        peers[name].update(_beside(times, name))
    return {
        "row": row.name,
        "what": row.what,
        "library": row.library,
        "ours": ours,
        "floors": {name: _beside(times, name) for name in work.floors},
        "peers": peers,
        "left_out": work.left_out,
        "bars": [_judge(bar, ours, times, peers) for bar in row.bars],
    }


def _beside(times: Mapping[str, Times], name: str) -> dict[str, Any]:
    """Return the times of another side, and how much longer ours and it take than each other."""
    ours, other = times["ours"], times[name]
    return {**other.to_dict(), "ours_over_this": ratio(ours, other)}


def _peers(
    work: Work, wanted: Sequence[Numbers], progress: Progress
) -> tuple[dict[str, Callable[[], Any]], dict[str, dict[str, Any]]]:
    """Return the calls of the peers that give the same answer, and what was found of each peer."""
    calls: dict[str, Callable[[], Any]] = {}
    report: dict[str, dict[str, Any]] = {}
    for name, peer in work.peers.items():
        progress(f"first call of {name}")
        try:
            call = peer.prepare()
            result, first = first_call(call)
        except MissingPeerError as missing:
            report[name] = {"status": "missing", "why": str(missing)}
            continue
        gaps = [_gap(x, y) for x, y in zip(peer.numpy(result), wanted, strict=True)]
        equal = all(gap <= most for gap, most in zip(gaps, work.tolerances, strict=True))
        report[name] = {
            "status": "equal" if equal else "different",
            "first_call_s": first,
            "errors": gaps,
        }
        if equal:
            calls[name] = call
    return calls, report


def _gap(found: Numbers, wanted: Numbers) -> float:
    """Return |found - wanted| / |wanted| in the 2-norm; inf where shapes or numbers are wrong."""
    if found.shape != wanted.shape:
        return math.inf
    gap = float(np.linalg.norm((found - wanted).ravel()) / np.linalg.norm(wanted.ravel()))
    return gap if math.isfinite(gap) else math.inf


def _judge(
    bar: Bar, ours: Mapping[str, Any], times: Mapping[str, Times], peers: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a bar with what was reached; ``holds`` is None where it cannot be said."""
    out: dict[str, Any] = {"what": bar.what, "limit": bar.limit, "against": None, "other_s": None}
    wrong = [e for e, most in zip(ours["errors"], ours["tolerances"], strict=True) if e > most]
    if wrong:
        why = f"ours is wrong: error {max(wrong):.1e}"
        return {**out, "reached": None, "holds": False, "why": why}
    value: float | None
    if bar.what in ("slower", "faster"):
        ran = [name for name in bar.against if name in times]
        if not ran:
            reasons = {name: peers.get(name, {}).get("status", "left out") for name in bar.against}
            why = ", ".join(f"{name}: {status}" for name, status in reasons.items())
            return {**out, "reached": None, "holds": None, "why": why}
        other = min(ran, key=lambda name: times[name].median)
        out |= {"against": other, "other_s": times[other].median}
        pair = (times["ours"], times[other])
        value = ratio(*pair) if bar.what == "slower" else ratio(*reversed(pair))
        holds = value <= bar.limit if bar.what == "slower" else value >= bar.limit
        return {**out, "reached": value, "holds": holds}
    value = {
        "error": max(ours["errors"]),
        "compile": ours["compile_s"],
        "memory": ours["extra_bytes"],
    }[bar.what]
    if value is None:
        return {**out, "reached": None, "holds": None, "why": "not measured on this system"}
    return {**out, "reached": value, "holds": value <= bar.limit}

"""What a row of the table is made of: ours, what it is held against, and the bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

__all__ = ["Bar", "MissingPeerError", "Numbers", "Peer", "Row", "Work"]

Numbers: TypeAlias = NDArray[Any]


class MissingPeerError(Exception):
    """A peer cannot be run here: why, and what to do."""


@dataclass(frozen=True)
class Bar:
    """One thing that a row must reach.

    Attributes
    ----------
    what : "slower", "faster", "error", "compile" or "memory"
        slower: ours may take at most ``limit`` times the time of ``against``; faster: ``against``
        takes at least ``limit`` times ours; error: against float64, in the 2-norm; compile: seconds
        of the first call beyond a steady one; memory: peak beyond what is returned, in bytes.
    against : names of sides; the fastest of those that ran counts
    """

    what: str
    limit: float
    against: tuple[str, ...] = ()


@dataclass
class Peer:
    """Code of others that does the same work.

    Attributes
    ----------
    prepare : returns the call, or raises MissingPeerError
    numpy : turns what the call returns into arrays as ours gives them
    """

    prepare: Callable[[], Callable[[], Any]]
    numpy: Callable[[Any], list[Numbers]]


@dataclass
class Work:
    """Everything a row runs, inputs drawn.

    Attributes
    ----------
    ours : a call of ssmcore's public function
    numpy : what it returns, as arrays
    exact : the same results in float64, by plain loops
    tolerances : the largest difference from ``exact`` allowed for each result, ours or a peer's
    floors : calls of the bandwidth, exp or matmul floor, by name
    peers : by name
    left_out : peers that are not run at this size, with the reason
    """

    ours: Callable[[], Any]
    numpy: Callable[[Any], list[Numbers]]
    exact: Callable[[], Sequence[Numbers]]
    tolerances: Sequence[float]
    floors: dict[str, Callable[[], Any]] = field(default_factory=dict)
    peers: dict[str, Peer] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A named row.

    Attributes
    ----------
    what : one line for people
    build : called with ``quick``; returns the work
    """

    name: str
    what: str
    library: str
    build: Callable[[bool], Work]
    bars: tuple[Bar, ...]

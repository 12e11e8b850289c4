"""Times of several ways to do the same work, taken in turn in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Times", "first_call", "interleave", "ratio"]

ROUNDS, FEWEST = 5, 3
MOST_CALLS = 25
SETTLE = 0.5


@dataclass
class Times:
    """Seconds of single calls, by round.

    Examples
    --------
    >>> Times([[1.0, 2.0], [3.0, 4.0]]).median
    2.5
    """

    rounds: list[list[float]] = field(default_factory=list)

    @property
    def calls(self) -> list[float]:
        """All calls, in the order they were made."""
        return [seconds for one in self.rounds for seconds in one]

    @property
    def median(self) -> float:
        """Median over all calls."""
        return statistics.median(self.calls)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile over all calls."""
        calls = self.calls
        if len(calls) == 1:
            return calls[0], calls[0]
        first, _, third = statistics.quantiles(calls, n=4, method="inclusive")
        return first, third

    def to_dict(self) -> dict[str, Any]:
        """Return median, quartiles and counts as numbers."""
        first, third = self.quartiles
        return {
            "median_s": self.median,
            "first_quartile_s": first,
            "third_quartile_s": third,
            "rounds": len(self.rounds),
            "calls": len(self.calls),
        }


def ratio(above: Times, below: Times) -> float:
    """Return the median over the common rounds of (median of ``above``) / (median of ``below``).

    Examples
    --------
    >>> ratio(Times([[2.0], [6.0], [4.0]]), Times([[1.0], [2.0], [4.0]]))
    2.0
    """
    pairs = zip(above.rounds, below.rounds, strict=False)
    return statistics.median(statistics.median(a) / statistics.median(b) for a, b in pairs)


def first_call(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what ``call`` returns and the seconds it took."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def interleave(
    sides: Mapping[str, Callable[[], Any]],
    *,
    seconds: float = 1.5,
    rounds: int = ROUNDS,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Times]:
    """Time all ``sides`` in turn, round after round, the order turned around every time.

    In each round a side is called once untimed, so that its caches and threads are its own again,
    and then timed as often as fits. Sides must return only when their work is done.

    Parameters
    ----------
    sides : calls by name; each has been called before
    seconds : what one side may take in all rounds together; slow sides run three single calls
    rounds : how often all sides take their turn
    progress : called with (side, turns done, turns in all)

    Returns
    -------
    Times of every side.

    Examples
    --------
    >>> times = interleave({"sum": lambda: sum(range(100))}, seconds=0.01)
    >>> len(times["sum"].rounds)
    5
    """
    times = {name: Times() for name in sides}
    plans = {name: _plan(call, seconds, rounds) for name, call in sides.items()}
    done, turns = 0, sum(plan.rounds for plan in plans.values())
    for index in range(rounds):
        names = list(sides) if index % 2 == 0 else list(sides)[::-1]
        for name in names:
            plan = plans[name]
            if index >= plan.rounds:
                continue
            if plan.settle:
                sides[name]()
            times[name].rounds.append([first_call(sides[name])[1] for _ in range(plan.calls)])
            done += 1
            if progress is not None:
                progress(name, done, turns)
    return times


@dataclass(frozen=True)
class _Plan:
    rounds: int
    calls: int
    settle: bool


def _plan(call: Callable[[], Any], seconds: float, rounds: int) -> _Plan:
    """Return how often ``call`` runs, from one call that is not counted."""
    once = max(first_call(call)[1], 1e-7)
    if once * rounds > seconds:
        return _Plan(min(rounds, FEWEST), 1, once < SETTLE)
    return _Plan(rounds, min(MOST_CALLS, max(1, int(seconds / rounds / once))), settle=True)

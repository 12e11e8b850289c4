"""The table of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["show"]


def show(report: Mapping[str, Any]) -> None:
    """Print a line per bar: row, ours, floor or peer, ratio, bar, whether it holds."""
    print(f"{'row':42} {'ours ms':>9} {'quartiles':>17} {'against':>18} {'ms':>9} {'reached':>9} {'bar':>9}")
    for row in report["rows"]:
        for bar in row["bars"]:
            print(line(row, bar))
        for name, peer in row["peers"].items():
            if peer["status"] != "equal":
                print(f"  {name}: {peer['status']} {peer.get('why', peer.get('errors'))}")


def line(row: Mapping[str, Any], bar: Mapping[str, Any]) -> str:
    """Return one bar of a row as a line."""
    ours = row["ours"]
    quartiles = f"{ours['first_quartile_s'] * 1e3:.2f}..{ours['third_quartile_s'] * 1e3:.2f}"
    other = f"{bar['other_s'] * 1e3:9.2f}" if bar["other_s"] is not None else f"{'':9}"
    holds = {True: "yes", False: "NO", None: "?"}[bar["holds"]]
    sign = ">=" if bar["what"] == "faster" else "<="
    return (
        f"{row['row']:42} {ours['median_s'] * 1e3:9.2f} {quartiles:>17} {bar['against'] or bar['what']:>18} "
        f"{other} {number(bar['reached']):>9} {sign}{number(bar['limit']):>7}  {holds} {bar.get('why', '')}"
    )


def number(value: float | None) -> str:
    """Return a number in four characters or so."""
    if value is None:
        return "-"
    return f"{value:.3g}" if value >= 0.01 else f"{value:.1e}"

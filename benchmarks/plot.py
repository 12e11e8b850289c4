"""``python -m benchmarks.plot RESULT.json``: the figures of a run, as SVG and PNG."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["caption", "main", "read"]

COLOURS = {"numpy": "#4c72b0", "torch": "#dd8452", "jax": "#55a868"}
OTHER = "#8172b3"
KINDS = ("svg", "png")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    result: Annotated[
        Path, typer.Argument(metavar="RESULT", help="What --json of a run has written.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where figures go; beside RESULT if none.")
    ] = None,
) -> None:
    """Draw rows against their bars and cost against L and N, with the fitted exponents."""
    try:
        report = read(result)
        import matplotlib as mpl
    except ModuleNotFoundError:
        _refuse('matplotlib is not installed; install it with: pip install "ssmcore[plot]"')
    except ValueError as error:
        _refuse(f"{str(result)!r}: {error}")
    mpl.use("Agg")
    folder = out or result.parent
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"bars": _bars(report), "cost_L": _costs(report, "L"), "cost_N": _costs(report, "N")}
    for name, figure in figures.items():
        for kind in KINDS if figure is not None else ():
            path = folder / f"{result.stem}_{name}.{kind}"
            figure.savefig(path, dpi=150, metadata={"Date": None} if kind == "svg" else None)
            print(path)


def read(path: Path) -> dict[str, Any]:
    """Return the report; ValueError where it is none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"cannot be read: {error}"
        raise ValueError(msg) from error
    if not isinstance(report, dict) or report.get("kind") != "ssmcore benchmarks":
        msg = "is no report of python -m benchmarks --json"
        raise ValueError(msg)
    return report


def _refuse(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(2)


def caption(report: Mapping[str, Any]) -> str:
    """Return the machine, the date and the versions of a run."""
    made = report["machine"]
    libraries = ("ssmcore", "numpy", "torch", "jax", "numba")
    versions = [f"{n} {report['versions'][n]}" for n in libraries if n in report["versions"]]
    return (
        f"{made['processor']}, {report['threads']} of {made['cores']} cores, {report['date']}; "
        + ", ".join(versions)
    )


def _bars(report: Mapping[str, Any]) -> Any:
    """Return the figure of all rows that are held against time, or None."""
    import matplotlib.pyplot as plt

    found = [
        (row, bar)
        for row in report["rows"]
        for bar in row.get("bars", ())
        if bar["what"] in ("slower", "faster") and bar["reached"] is not None
    ]
    halves = [[x for x in found if x[1]["what"] == what] for what in ("slower", "faster")]
    halves = [half for half in halves if half]
    if not halves:
        return None
    heights = [len(half) + 2 for half in halves]
    figure, axes = plt.subplots(
        len(halves), 1, figsize=(9, 0.24 * sum(heights) + 1), height_ratios=heights, squeeze=False
    )
    titles = {"slower": "time of ours / time of the floor", "faster": "time of the peer / ours"}
    for axis, half in zip(axes[:, 0], halves, strict=True):
        labels = [f"{row['row']}  ({bar['against']})" for row, bar in half]
        places = range(len(half))
        reached = [bar["reached"] for _, bar in half]
        colours = [COLOURS.get(row["library"], OTHER) for row, _ in half]
        axis.barh(places, reached, color=colours, height=0.7)
        for place, (_, bar) in zip(places, half, strict=True):
            axis.plot([bar["limit"]] * 2, [place - 0.45, place + 0.45], color="black", lw=1.5)
            axis.text(bar["reached"], place, f" {bar['reached']:.3g}", va="center", fontsize=7)
        axis.set_yticks(places, labels, fontsize=7)
        axis.invert_yaxis()
        axis.set_xscale("log")
        axis.set_title(f"{titles[half[0][1]['what']]}; the black mark is the bar", fontsize=9)
    figure.suptitle(caption(report), fontsize=7)
    figure.tight_layout()
    return figure


def _costs(report: Mapping[str, Any], letter: str) -> Any:
    """Return the figure of time (above) and memory (below) against L or N, or None."""
    import matplotlib.pyplot as plt

    curves = [c for c in report["curves"] if c.get("axis") == letter]
    if not curves:
        return None
    figure, axes = plt.subplots(
        2, len(curves), figsize=(2.6 * len(curves) + 0.6, 5.4), squeeze=False, sharex="col"
    )
    for column, curve in enumerate(curves):
        name = curve["curve"].removeprefix("cost_").rsplit("_", 1)[0]
        for one in curve["libraries"]:
            for row, (key, scale) in enumerate((("seconds", 1e3), ("peak_bytes", 2**-20))):
                power = one["exponents"]["time" if row == 0 else "memory"]
                if power is None:
                    continue
                axes[row, column].plot(
                    curve["sizes"],
                    [value * scale for value in one[key]],
                    "o-",
                    ms=3,
                    lw=1,
                    color=COLOURS.get(one["library"], OTHER),
                    label=f"{one['library']} ~ {letter}^{power:.2f}",
                )
        axes[0, column].set_title(f"{name}\n{curve['what']}", fontsize=8)
        axes[1, column].set_xlabel(letter)
    for axis in axes.flat:
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=6, frameon=False)
    axes[0, 0].set_ylabel("ms")
    axes[1, 0].set_ylabel("peak MiB, result included")
    figure.suptitle(caption(report), fontsize=7)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    app()

"""``python -m benchmarks``: run rows of the table."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.command()
def main(
    row: Annotated[
        list[str] | None,
        typer.Option(help="Rows and curves, whole names or parts of them; repeated. All if none."),
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="All rows of the GPU instead.")] = False,
    names: Annotated[bool, typer.Option("--list", help="Print the names and stop.")] = False,
    threads: Annotated[int, typer.Option(help="Cores to run on; the bars are for two.")] = 2,
    seconds: Annotated[float, typer.Option(help="What one side of a row may take.")] = 1.5,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes and single calls: does everything run?")
    ] = False,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all figures to FILE.")
    ] = None,
) -> None:
    """Time ssmcore beside floors and peers, row by row, and print one table.

    Exit code 0 when all bars hold, 1 when one does not or a row fails, 2 for input that makes no
    sense. docs/benchmarks.md says how figures are taken.
    """
    _use_cores(threads)
    from benchmarks import run

    raise typer.Exit(
        run.main(
            row or [],
            gpu=gpu,
            names=names,
            threads=threads,
            seconds=seconds,
            quick=quick,
            path=json,
        )
    )


def _use_cores(count: int) -> None:
    """Hold every library, loaded after this, to ``count`` threads on as many cores."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(count)
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:count])


if __name__ == "__main__":
    sys.exit(app())

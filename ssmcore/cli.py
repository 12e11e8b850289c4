"""The command ``ssmcore``: verify and compare prove, doctor and bench report, generate writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import ssmcore
from ssmcore import backend
from ssmcore._reporting import check_writable
from ssmcore.compare_cli import COMPARE
from ssmcore.compare_cli import command as compare
from ssmcore.errors import SSMError
from ssmcore.generate_cli import CONVERT, GENERATE, convert, generate

__all__ = ["app", "main"]

app = typer.Typer(
    name="ssmcore",
    help="Deep state space models on any array library, with proof that they agree.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line: the entry point of ``ssmcore`` and ``python -m ssmcore``."""
    app(prog_name="ssmcore")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ssmcore {ssmcore.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@contextmanager
def _clean_errors() -> Iterator[None]:
    """Turn input that cannot be accepted into one line and exit code 2."""
    try:
        yield
    except SSMError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """Give a function that moves a bar on standard error, or None away from a terminal."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeElapsedColumn as Elapsed

    text = TextColumn("{task.description}")
    with Progress(
        text, BarColumn(), MofNCompleteColumn(), Elapsed(), console=console, transient=True
    ) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda label, done, total: bar.update(
            task, description=label, completed=done, total=total
        )


def _console() -> Console:
    """Return the console of standard output; plain and unwrapped away from a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160, no_color=True)


def _listed(given: list[str] | None) -> list[str] | None:
    """Return repeated and comma-separated names as one list; None where nothing was given."""
    if not given:
        return None
    return [name.strip() for part in given for name in part.split(",") if name.strip()]


def _enable_float64(names: list[str]) -> list[str]:
    """Switch 64-bit types on where they are off, and return notes that say so."""
    notes = []
    for name in names:
        owner = backend.load(name)
        if not owner.has_float64():
            owner.enable_float64()
            notes.append(f"{name}: 64-bit types were off and are switched on for this process")
    return notes


VERIFY = """Prove that all backends and modes give the same answer, and say how closely.

Every model runs on every backend, in every mode and dtype, over a recorded series. \
Outputs are compared with a sequential float64 oracle, modes with each other, eigenvalues and \
gradients between backends.

Exit code 0 when everything agrees, 1 when something does not, 2 for input that makes no sense.

[bold]Examples[/bold]

ssmcore verify

ssmcore verify S5 LRU --backends numpy,torch --dtype float32

ssmcore verify --input speech.wav --length 4096 --json report.json
"""
DOCTOR = """Execute every primitive of every installed backend and say which code runs.

Each primitive runs on a small fixed input in float32 and float64 and is compared with a plain \
sequential loop. Exit code 1 when something that is installed is broken.

[bold]Examples[/bold]

ssmcore doctor

ssmcore doctor --json doctor.json
"""
BENCH = """Say how fast every primitive and layer runs on every installed backend.

Each takes turns with the floor of its work, measured in the same run: an addition that moves \
inputs and output through memory once, or the matrix products it is made of. First call, \
compilation, steady state (median and quartiles), gradients, peak memory and the error against \
float64 are given apart. Beside other tools: nox -s bench, in a checkout.

Exit code 0 when everything ran, 1 when something failed, 2 for input that makes no sense.

[bold]Examples[/bold]

ssmcore bench

ssmcore bench selective_scan S6 --backends torch,jax --length 16384 --json bench.json
"""

Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write every figure to FILE.")
]


@app.command(help=VERIFY)
def verify(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODELS", help="LSSL, S4, S4D, S5, LRU, S6, RGLRU; all by default."),
    ] = None,
    backends: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES", help="Comma-separated or repeated; all installed by default."
        ),
    ] = None,
    modes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES", help="Of recurrence, scan, convolution, chunked; all by default."
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help="Of float32, float64; both by default."),
    ] = None,
    series: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="A series as .npy, .csv or .wav; an electrocardiogram by default.",
        ),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            help="Leading samples used; 1024, or all of a shorter file, by default.",
            show_default=False,
        ),
    ] = None,
    d_model: Annotated[int, typer.Option(help="Channels of the models.")] = 8,
    d_state: Annotated[int, typer.Option(help="States of the models.")] = 16,
    seed: Annotated[int, typer.Option(help="Of parameters, chunks and cotangents.")] = 0,
    json: Json = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "--no-progress", "-q", help="No progress bar.")
    ] = False,
) -> None:
    """Run ``ssmcore verify``."""
    from ssmcore import verify as verification
    from ssmcore.series import load
    from ssmcore.verify.table import show

    with _clean_errors():
        check_writable(json)
        values = None if series is None else load(series)
        chosen = _listed(backends)
        kinds = _listed(dtype) or ["float32", "float64"]
        with _progress(quiet) as progress:
            usable, _ = verification.choose_backends(chosen)
            switched = _enable_float64(usable) if "float64" in kinds else []
            report = verification.run(
                _listed(models), chosen, _listed(modes), kinds, values,
                length=length, d_model=d_model, d_state=d_state, seed=seed, progress=progress,
            )  # fmt: skip
        report.notes += switched
        if series is not None:
            report.settings["input"] = series.name
        if json is not None:
            report.write_json(json)
    show(report, _console())
    _exit(report)


@app.command(help=DOCTOR)
def doctor(json: Json = None) -> None:
    """Run ``ssmcore doctor``."""
    from ssmcore import doctor as examination

    with _clean_errors():
        check_writable(json)
        with _progress(quiet=False) as progress:
            report = examination.run(progress=progress, enable_float64=True)
        if json is not None:
            report.write_json(json)
    examination.show(report, _console())
    _exit(report)


@app.command(help=BENCH)
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAMES", help="Primitives and layers; all by default."),
    ] = None,
    backends: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES", help="Comma-separated or repeated; all installed by default."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences B.")] = 2,
    length: Annotated[int, typer.Option(min=1, help="Steps L.")] = 4096,
    channels: Annotated[int, typer.Option(min=4, help="Channels H, a multiple of 4.")] = 64,
    states: Annotated[int, typer.Option(min=2, help="States N, even.")] = 32,
    seconds: Annotated[float, typer.Option(help="What one side of a comparison may take.")] = 1.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small inputs and single calls: does everything run?")
    ] = False,
    json: Json = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "--no-progress", "-q", help="No progress bar.")
    ] = False,
) -> None:
    """Run ``ssmcore bench``."""
    from ssmcore.bench import run as benchmark
    from ssmcore.bench.table import show

    with _clean_errors():
        check_writable(json)
        size = None if quick else benchmark.Size(batch, length, channels, states)
        with _progress(quiet) as progress:
            report = benchmark.run(
                _listed(names), _listed(backends),
                size=size, quick=quick, seconds=seconds, progress=progress,
            )  # fmt: skip
        if json is not None:
            report.write_json(json)
    show(report, _console())
    _exit(report)


app.command("compare", help=COMPARE)(compare)
app.command("generate", help=GENERATE)(generate)
app.command("convert", help=CONVERT)(convert)


def _exit(report: Any) -> None:
    if not report.passed:
        raise typer.Exit(1)

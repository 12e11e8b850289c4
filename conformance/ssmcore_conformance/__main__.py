"""The command ``python -m ssmcore_conformance``: the suite on installed backends, with reports."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ssmcore.errors import SSMError, check_choice

NEEDED = ("pytest", "hypothesis", "mpmath", "array_api_strict")
if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
    names = ", ".join(missing)
    sys.exit(f'error: the suite needs {names}; install it with: pip install "ssmcore[conformance]"')

from ssmcore_conformance.plugin import EXAMPLES, HERE  # noqa: E402

__all__ = ["main"]

HELP = """Prove that backends compute what the papers say: run the conformance suite on them.

Every primitive, discretisation, initialisation and layer is run on every backend and compared \
with float64 definitions; recurrence, scan, convolution and chunks with each other; gradients \
between libraries. Each error is shown beside its tolerance.

Exit code 0 when all tests pass, 1 when any fails, 2 to 5 as of pytest.

[bold]Examples[/bold]

python -m ssmcore_conformance

python -m ssmcore_conformance --backend torch --report out.html

python -m ssmcore_conformance --backend mylibrary --select linear_scan,layers --profile dev

python -m ssmcore_conformance -- -n 2 -x        (what follows -- goes to pytest)
"""
SUBJECTS = sorted(path.stem.removeprefix("test_") for path in HERE.glob("test_*.py"))
Files = list[Path] | None
Names = list[str] | None


def run(
    arguments: Annotated[
        Names, typer.Argument(metavar="[-- PYTEST OPTIONS]", help="Passed on to pytest.")
    ] = None,
    backend: Annotated[
        Names,
        typer.Option(
            metavar="NAMES", help="Comma-separated or repeated; all installed by default."
        ),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="dev: few examples; ci: some, always the same; nightly: many, on JAX too.",
        ),
    ] = "ci",
    select: Annotated[
        Names,
        typer.Option(metavar="SUBJECTS", help=f"Of {', '.join(SUBJECTS)}; all by default."),
    ] = None,
    report: Annotated[
        Files,
        typer.Option(metavar="FILE", help="Write a report; .html or .json by suffix. Repeatable."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write every figure to FILE.json.")
    ] = None,
    ledger: Annotated[
        Files,
        typer.Option(
            metavar="FILE", help="Known failures of the backend that FILE.toml is named after."
        ),
    ] = None,
) -> None:
    """Run the suite with pytest."""
    options = [f"--ssm-profile={profile}"]
    options += [f"--ssm-backend={name}" for name in backend or ()]
    options += [f"--ssm-ledger={path.absolute()}" for path in ledger or ()]
    reports = [*(report or ()), *([json] if json else ())]
    options += [f"--ssm-report={path.absolute()}" for path in reports]
    try:
        check_choice("conformance", "profile", profile, EXAMPLES)
        modules = _modules(select or [])
        if json is not None and json.suffix != ".json":
            msg = f"--json is {json}; expected a name that ends in .json"
            raise SSMError(msg)
    except SSMError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    own = [f"--rootdir={HERE}", f"--config-file={os.devnull}", "--import-mode=importlib"]
    own += ["-pno:cacheprovider", "-Wignore:Module already imported", *(arguments or ())]
    raise typer.Exit(_watched(["--pyargs", *modules, *options, *own]))


def _watched(arguments: list[str]) -> int:
    """Run pytest in a process of its own; one that dies has failed, whatever its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *arguments, f"--ssm-trace={trace}"]
        )
        code = None
        while code is None:  # Ctrl-C goes to pytest too, which ends in its own time
            with contextlib.suppress(KeyboardInterrupt):
                code = process.wait()
        if not trace.exists():
            return code
        test = trace.read_text(encoding="utf-8")
    msg = f"error: pytest's process died with exit code {code} in {test}; what comes after was not"
    typer.echo(f"\n{msg} run. With pytest-xdist, -- -n 1, the other tests run on.", err=True)
    return 1


def _modules(given: list[str]) -> list[str]:
    """Return what pytest is to collect; SSMError for a subject that there is not."""
    names = [name.strip() for part in given for name in part.split(",") if name.strip()]
    for name in names:
        check_choice("conformance", "select", name, SUBJECTS)
    return [f"{HERE.name}.test_{name}" for name in names] or [HERE.name]


app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command(help=HELP)(run)


def main() -> None:
    """Run the command line."""
    app(prog_name="python -m ssmcore_conformance")


if __name__ == "__main__":
    main()

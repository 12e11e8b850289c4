"""``ssmcore compare``: two models named on the command line, from Python modules or files."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from ssmcore import backend
from ssmcore._reporting import check_writable, first_line
from ssmcore.backend import DTYPES
from ssmcore.checkpoints import Reading, load
from ssmcore.errors import SSMError, check_choice, nearest
from ssmcore.layers import Layer
from ssmcore.series import as_channels
from ssmcore.series import load as load_series

__all__ = ["COMPARE", "command", "load_side"]

COMPARE = """Say whether two models are the same, and where they part first if they are not.

Both get the same input. Outputs, states and gradients are compared in the precision of the \
parameters and again in float64: a gap that shrinks is rounding, one that stays is a real \
difference, given with its first time step and channel and both values.

REFERENCE and CANDIDATE are MODULE:ATTRIBUTE (a callable of one array, a torch module, a tuple \
(layer, params) or (function, params), an ssmcore layer, or a list of these, compared block by \
block), or a file written by ssmcore.checkpoints.save. Modules are looked for in this folder too.

Exit code 0 when the models are equal or differ by rounding, 1 when they differ, 2 for input that \
makes no sense, 3 when what was run cannot decide between rounding and a difference.

[bold]Examples[/bold]

ssmcore compare original:model port:model --channels 8

ssmcore compare trained.safetensors export:model --input speech.npy --json report.json
"""
EXIT_CODES = {"different": 1, "undecided": 3}
CHANNELS = "expected --channels H, the channels of the input"


def command(
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="MODULE:ATTRIBUTE or a saved layer.")
    ],
    candidate: Annotated[
        str, typer.Argument(metavar="CANDIDATE", help="The same, for the model in doubt.")
    ],
    series: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="A series as .npy, .csv or .wav, one sequence; random numbers by default.",
        ),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Steps: of random input 256, of a file all of them, by default.",
            show_default=False,
        ),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Channels of the input; known for ssmcore layers.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences of random input.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of random input and cotangents.")] = 0,
    dtype: Annotated[
        str, typer.Option(help="Of the input where no parameters tell: float32 or float64.")
    ] = "float32",
    gradients: Annotated[
        bool, typer.Option("--gradients/--no-gradients", help="Compare gradients too.")
    ] = True,
    reference_library: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Library of a plain callable: numpy, torch, jax ..."),
    ] = None,
    candidate_library: Annotated[
        str | None, typer.Option(metavar="NAME", help="The same, for the candidate.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write every figure to FILE.")
    ] = None,
) -> None:
    """Run ``ssmcore compare``."""
    from ssmcore.cli import _clean_errors, _enable_float64
    from ssmcore.verify.compare_run import compare

    with _clean_errors():
        check_writable(json)
        check_choice("compare", "dtype", dtype, DTYPES)
        sides = [load_side(reference), load_side(candidate)]
        width = channels or next((w for w in map(_width, sides) if w), None)
        shape = (batch, length, width)
        u = _from_file(series, length, width) if series else _random(shape, seed)
        named = [name for name in (reference_library, candidate_library) if name]
        loaded = [n for n in backend.available() if backend.load(n).library in sys.modules]
        notes = _enable_float64([*named, *loaded])
        report = compare(
            sides[0],
            sides[1],
            u.astype(dtype),
            gradients=gradients,
            reference_library=reference_library,
            candidate_library=candidate_library,
            seed=seed,
        )
        report.notes.extend(notes)
        if json is not None:
            report.write_json(json)
    typer.echo(str(report))
    if not report.passed:
        raise typer.Exit(EXIT_CODES[report.verdict])


# --------------------------------------------------------------------------------------- models


def load_side(text: str) -> Any:
    """Return what MODULE:ATTRIBUTE names, or (layer, params) of a saved layer.

    Raises
    ------
    SSMError
        No such module, attribute or file; a module that fails on import; a file of something else.
    """
    module, colon, attribute = text.partition(":")
    if os.path.exists(text) or not (colon and module and attribute):
        return _load_file(text)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # whatever somebody else's module raises
        msg = f"{text}: importing {module!r} raises {first_line(error)}; check name and folder"
        raise SSMError(msg) from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            msg = f"{text}: there is no {name!r} in it{nearest(name, dir(found))}"
            raise SSMError(msg)
        found = getattr(found, name)
    return found


def _load_file(text: str) -> tuple[Layer, Any]:
    if not os.path.isfile(text):
        msg = f"{text!r} is no file; expected MODULE:ATTRIBUTE or a file of checkpoints.save"
        raise SSMError(msg)
    config, params = load(text)
    model = config.pop("model", None)
    try:
        return Reading(model, config, params).layer(), params
    except (AttributeError, KeyError, TypeError) as error:
        msg = (
            f"{text}: its configuration names no layer ({first_line(error)}); expected "
            '{"model": "S5", ...} with the options of that layer'
        )
        raise SSMError(msg) from error


# ---------------------------------------------------------------------------------------- input


def _width(side: Any) -> int | None:
    """Return the channels of an ssmcore layer, however it is given; None for other models."""
    first = side[0] if isinstance(side, tuple | list) and len(side) else side
    if first is not side and isinstance(side, list):
        return _width(first)
    layer = getattr(first, "layer", first)
    return layer.d_model if isinstance(layer, Layer) else None


def _random(shape: tuple[int, int | None, int | None], seed: int) -> NDArray[np.float64]:
    batch, length, channels = shape
    if channels is None:
        msg = f"compare: neither model says how many channels it takes; {CHANNELS}"
        raise SSMError(msg)
    return np.random.default_rng(seed).standard_normal((batch, length or 256, channels))


def _from_file(path: Path, length: int | None, channels: int | None) -> NDArray[np.float64]:
    """Return one sequence; spread over the channels where the file has another number of them."""
    values = load_series(path)
    if length is not None and length > len(values):
        msg = f"compare: length is {length}; expected 1 to {len(values)}, the samples of {path}"
        raise SSMError(msg)
    values = values[:length]
    if channels is not None and channels != values.shape[1]:
        values = as_channels(values, channels)
    return values[None]

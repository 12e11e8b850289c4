"""``ssmcore generate`` and ``ssmcore convert``: language models in checkpoint folders."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ssmcore._files import check_writable, replace
from ssmcore.errors import SSMError, check_choice

__all__ = ["CONVERT", "GENERATE", "convert", "generate"]

GENERATE = """Continue a text with the language model in a checkpoint folder.

The folder is one of transformers (Mamba, RecurrentGemma), mamba_ssm or ssmcore. Text needs its \
tokenizer.json and the library tokenizers; --tokens needs neither, and prints tokens.

Exit code 0, or 2 for input that makes no sense.

[bold]Examples[/bold]

ssmcore generate --checkpoint mamba-130m-hf --backend torch --prompt "State space models are"

ssmcore generate --checkpoint model --tokens 1,2,3 --max-tokens 20 --temperature 0.8 --top-p 0.9

ssmcore generate --checkpoint model --prompt "Once" --save-state story

ssmcore generate --checkpoint model --state story
"""
CONVERT = """Write a checkpoint in another layout.

Tokenizer files come along. mamba_ssm itself loads pickled weights alone: give the file written \
here to load_state_dict by safetensors.torch.load_file.

Exit code 0, or 2 for what cannot be read or said in that layout.

[bold]Examples[/bold]

ssmcore convert mamba-130m-hf mamba-130m --to ssmcore

ssmcore convert trained mamba-hf --to transformers --dtype bfloat16
"""


def generate(
    checkpoint: Annotated[Path, typer.Option(metavar="DIR", help="The checkpoint folder.")],
    prompt: Annotated[str | None, typer.Option(help="Text to continue.")] = None,
    tokens: Annotated[
        str | None, typer.Option(metavar="1,2,3", help="Tokens to continue, in place of text.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", help="Array library; SSMCORE_BACKEND or numpy.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="In the library's own terms.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, float64, bfloat16, float16; as stored, at least float32."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=0, help="Tokens at most.")] = 100,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_k: Annotated[int | None, typer.Option(help="Draw among the k likeliest.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw among the likeliest of this share.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Draw among those this likely beside the likeliest.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    stop: Annotated[
        str | None,
        typer.Option(metavar="1,2", help="Tokens that end the text; those of the folder, or ''."),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Go on from a saved state.")
    ] = None,
    save_state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the state after the text to FILE.")
    ] = None,
) -> None:
    """Run ``ssmcore generate``."""
    from ssmcore import generation
    from ssmcore.checkpoints import load_pretrained
    from ssmcore.checkpoints.tokens import special_tokens
    from ssmcore.cli import _clean_errors
    from ssmcore.networks import LanguageModel

    with _clean_errors():
        check_writable(save_state)
        if not checkpoint.exists():
            load_pretrained(checkpoint)  # says what is expected there
        if (prompt is None) == (tokens is None) and not (state and prompt is None):
            msg = "generate: expected --prompt or --tokens, one of them (none with --state)"
            raise SSMError(msg)
        encode, decode = (
            _plain() if _wants_tokens(checkpoint, prompt, tokens) else _text(checkpoint)
        )
        given = prompt if prompt is not None else tokens
        row = None if given is None else [encode(given)]
        model, params = load_pretrained(checkpoint, backend=backend, device=device, dtype=dtype)
        if not isinstance(model, LanguageModel):
            msg = f"generate: {str(checkpoint)!r} holds {model.name}; expected a LanguageModel"
            raise SSMError(msg)
        ends = special_tokens(checkpoint).get("eos_token_id", [])
        ends = ends if isinstance(ends, list) else [ends]
        run = generation.generate(
            model,
            params,
            row,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
            stop=ends if stop is None else _numbers("--stop", stop),
            state=None if state is None else generation.load_state(state, model, params),
        )
        for piece in decode(int(found[0]) for found in run):
            typer.echo(piece, nl=False)
        typer.echo()
        if save_state is not None:
            generation.save_state(save_state, model, run.state)


def _wants_tokens(checkpoint: Path, prompt: str | None, tokens: str | None) -> bool:
    """Whether tokens go in and out; a continued state is text where the folder can make it."""
    from ssmcore.checkpoints.tokens import TOKENIZER

    if prompt is not None or tokens is not None:
        return prompt is None
    has_library = importlib.util.find_spec("tokenizers") is not None
    return not (has_library and (checkpoint / TOKENIZER).is_file())


Decode = Callable[[Iterator[int]], Iterator[str]]


def _plain() -> tuple[Callable[[str], list[int]], Decode]:
    """Return how numbers become tokens, and tokens numbers."""

    def decode(tokens: Iterator[int]) -> Iterator[str]:
        for i, token in enumerate(tokens):
            yield f",{token}" if i else str(token)

    return lambda text: _numbers("--tokens", text), decode


def _numbers(option: str, text: str) -> list[int]:
    """Return comma-separated whole numbers."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        msg = f"generate: {option} is {text!r:.50}; expected whole numbers such as 1,2,3"
        raise SSMError(msg) from None


def _text(folder: Path) -> tuple[Callable[[str], list[int]], Decode]:
    """Return how text becomes tokens, and tokens text, by the folder's tokenizer."""
    from ssmcore.checkpoints.tokens import TOKENIZER

    file = folder / TOKENIZER
    if not file.is_file():
        msg = f"{str(folder)!r} has no {TOKENIZER}; expected one, or --tokens 1,2,3"
        raise SSMError(msg)
    if importlib.util.find_spec("tokenizers") is None:
        msg = "text needs the library tokenizers: pip install tokenizers, or use --tokens 1,2,3"
        raise SSMError(msg)
    from tokenizers import Tokenizer
    from tokenizers.decoders import DecodeStream

    try:
        tokenizer: Any = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises Exception itself
        msg = f"{str(file)!r} is not a tokenizer ({error})"
        raise SSMError(msg) from None

    def encode(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text).ids
        return found

    def decode(tokens: Iterator[int]) -> Iterator[str]:
        stream: Any = DecodeStream(skip_special_tokens=True)
        for token in tokens:
            piece = stream.step(tokenizer, token)
            if piece:
                yield piece

    return encode, decode


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="The checkpoint to read.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write.")],
    to: Annotated[str, typer.Option(metavar="LAYOUT", help="transformers, ssmcore or mamba_ssm.")],
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, float64, bfloat16 or float16, the latter for products and embeddings; "
            "that of the largest tensor by default."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete another model that DST holds.")
    ] = False,
) -> None:
    """Run ``ssmcore convert``."""
    from ssmcore.checkpoints import load_pretrained, save_pretrained, stored_dtype
    from ssmcore.checkpoints.tokens import special_tokens
    from ssmcore.cli import _clean_errors

    with _clean_errors():
        check_choice("convert", "--to", to, ("transformers", "ssmcore", "mamba_ssm"))
        if source.resolve() == target.resolve():
            msg = f"convert: SRC and DST are both {str(source)!r}; expected another folder"
            raise SSMError(msg)
        model, params = load_pretrained(source, backend="numpy")
        save_pretrained(
            target,
            model,
            params,
            layout=to,
            dtype=dtype or stored_dtype(source),
            special_tokens=special_tokens(source),
            overwrite=overwrite,
        )
        if target.is_dir():
            _copy_beside(source, target)
    typer.echo(f"{target}: {model.name} in the layout of {to}")


def _copy_beside(source: Path, target: Path) -> None:
    """Copy the files of the tokenizer, and what else the source says of generating."""
    from ssmcore.checkpoints.folders import read_json
    from ssmcore.checkpoints.tokens import GENERATION, TOKENIZER_FILES, generation_config

    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if (source / GENERATION).is_file():
        replace(target / GENERATION, generation_config(target, read_json(source / GENERATION)))

"""The language models of the papers, by their sizes."""

from __future__ import annotations

import math
from typing import Any

from ssmcore.blocks.attention import LocalAttention
from ssmcore.blocks.gated import GatedMLP
from ssmcore.blocks.hawk import Hawk
from ssmcore.blocks.mamba import Mamba
from ssmcore.blocks.norms import RMSNorm
from ssmcore.blocks.residual import Residual
from ssmcore.errors import SSMError, check_choice
from ssmcore.module import Module
from ssmcore.networks.language import LanguageModel

__all__ = ["griffin", "mamba"]

PATTERN = ("recurrent", "recurrent", "attention")


def mamba(vocab: int, d_model: int, n_layers: int, **options: Any) -> LanguageModel:
    """Return the language model of Mamba: RMSNorm (1e-5), mixer, residual; tied head.

    ``options`` are those of ``blocks.Mamba``. Source: Gu and Dao 2023, section 3.4.

    Raises SSMError for options that Mamba has not.

    Examples
    --------
    >>> from ssmcore import networks
    >>> networks.mamba(64, 16, 2).n_layers
    2
    """
    mixer = Mamba(d_model, **{"output_gain": 1.0 / n_layers, **options})
    norm = RMSNorm(d_model, eps=1e-5)
    return LanguageModel(vocab, Residual(mixer, norm=norm), n_layers, norm=norm)


def griffin(
    vocab: int,
    d_model: int,
    n_layers: int,
    *,
    heads: int,
    window: int = 1024,
    d_rnn: int | None = None,
    d_hidden: int | None = None,
    pattern: tuple[str, ...] = PATTERN,
    soft_cap: float | None = 30.0,
) -> LanguageModel:
    """Return the language model of Griffin; with ``pattern=("recurrent",)`` Hawk.

    Parameters
    ----------
    vocab, d_model, n_layers : int
    heads : of the attention and of the gates of RG-LRU
    window : steps the attention looks at
    d_rnn : width of the recurrence; None means d_model
    d_hidden : width of the MLP; None means 3 d_model
    pattern : tuple of "recurrent" and "attention", repeated
    soft_cap : 30 in RecurrentGemma, None in the paper

    Returns
    -------
    LanguageModel. Source: De et al. 2024, section 2; initial weights of RecurrentGemma.

    Raises
    ------
    SSMError
        An unknown part of the pattern, heads that do not divide the widths.

    Examples
    --------
    >>> from ssmcore import networks
    >>> model = networks.griffin(64, 16, 5, heads=2, window=8)
    >>> [type(layer.mixer).__name__ for layer in model.block]
    ['Hawk', 'Hawk', 'LocalAttention']
    """
    gain = 2.0 / n_layers
    norm = RMSNorm(d_model, offset=1.0)
    mlp = GatedMLP(d_model, 3 * d_model if d_hidden is None else d_hidden, gain=gain)
    mixers: dict[str, Module] = {
        "recurrent": Hawk(d_model, d_rnn, heads=heads, output_gain=gain),
        "attention": LocalAttention(d_model, heads, window, output_gain=gain),
    }
    if not isinstance(pattern, tuple) or not pattern:
        msg = f"griffin: pattern is {pattern!r:.50}; expected a tuple such as {PATTERN}"
        raise SSMError(msg)
    for kind in pattern:
        check_choice("griffin", "part of the pattern", kind, mixers)
    blocks = tuple(Residual(mixers[kind], mlp, norm, norm) for kind in pattern)
    return LanguageModel(
        vocab,
        blocks,
        n_layers,
        norm=norm,
        embedding_scale=math.sqrt(d_model),
        embedding_std=1.0 / math.sqrt(d_model),
        soft_cap=soft_cap,
    )

"""What networks share: their blocks, and a call with padding on either side."""

from __future__ import annotations

from typing import Any

from ssmcore import arrays
from ssmcore._arguments import check_count
from ssmcore.blocks.residual import Stack
from ssmcore.composition import Pass
from ssmcore.errors import SSMError
from ssmcore.module import Module
from ssmcore.networks.padding import check_padding, turned
from ssmcore.typing import Array, Params, State

__all__ = ["Network", "check_blocks", "stacked"]


def check_blocks(owner: str, block: object, n_layers: object) -> None:
    """Raise SSMError unless ``block`` is a module, or a tuple of some that keep their width."""
    check_count(owner, n_layers=n_layers)
    blocks = block if isinstance(block, tuple) else (block,)
    if not blocks or not all(isinstance(b, Module) and not b.tokens for b in blocks):
        msg = f"{owner}: block is {block!r:.80}; expected a block, or a tuple of blocks"
        raise SSMError(msg)
    widths = {w for b in blocks for w in (b._d_input, b.d_output)}
    if len(widths) > 1:
        msg = f"{owner}: the blocks have {sorted(widths)} channels; expected one number"
        raise SSMError(msg)


def stacked(block: Module | tuple[Module, ...], n_layers: int) -> Stack:
    """Return ``n_layers`` layers, layer i being block i mod their number."""
    blocks = block if isinstance(block, tuple) else (block,)
    return Stack(tuple(blocks[i % len(blocks)] for i in range(n_layers)))


class Network(Module):
    """A module whose call takes padding on either side."""

    def _prepared(
        self,
        params: Params,
        u: Array,
        state: State | None,
        padding: str,
        options: dict[str, Any],
    ) -> tuple[Params, Array, Pass]:
        """Return nested parameters, the input with padding on the right, and how the call runs."""
        training, key = options.pop("training"), options.pop("key")
        check_padding(self.name, padding, options["lengths"])
        params = self._check_params(params)
        how = self._checked_pass(params, u, state, **options)
        how = self._checked_training(how, training, key)
        if padding == "left":
            axis = -1 if self.tokens else -2
            u = turned(u, self._row_lengths(how), axis)
            if how.reset is not None:
                given = arrays.namespace(u).broadcast_to(options["reset"], how.reset.shape)
                reset = turned(given, self._row_lengths(how), -1)
                how = how._replace(reset=reset & how.valid)
        return params, self._hidden(u, how), how

    @staticmethod
    def _row_lengths(how: Pass) -> Array:
        assert how.lengths is not None
        return how.lengths

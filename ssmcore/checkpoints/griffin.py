"""Checkpoints of google-deepmind/recurrentgemma: its RG-LRU, in the torch and the JAX layout.

Paper: De et al. 2024 (Griffin, arXiv:2402.19427), section 2.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssmcore.arrays import namespace
from ssmcore.checkpoints.reading import Reading, check_keys, check_shapes, select
from ssmcore.errors import SSMError
from ssmcore.primitives._checks import check_array
from ssmcore.typing import Array

__all__ = ["read_rglru", "reset_from_positions"]

_NAMES = ("a_param", "input_gate.w", "input_gate.b", "a_gate.w", "a_gate.b")


def read_rglru(state_dict: Mapping[str, Any], *, prefix: str = "") -> Reading:
    """Read an ``RGLRU``: h_t = a_t h_{t-1} + sqrt(1 - a_t^2) i_t u_t.

    log a_t = -8 r_t softplus(a_param), with the gates r_t and i_t block-diagonal.

    Parameters
    ----------
    state_dict : mapping of str to array
        a_param (H), input_gate.w, a_gate.w (heads, H/heads, H/heads), input_gate.b, a_gate.b
        (heads, H/heads); nested, or flat with "." (torch) or "/" (JAX).
    prefix : str
        Where the layer sits, e.g. "blocks.0.recurrent_block.rg_lru".

    Returns
    -------
    Reading
        "RGLRU". The original restarts where segment_pos is 0: see :func:`reset_from_positions`.

    Raises
    ------
    SSMError
        Missing, unexpected or misshapen arrays.

    Examples
    --------
    >>> import numpy as np
    >>> gate = {"w": np.zeros((4, 2, 2)), "b": np.zeros((4, 2))}
    >>> read_rglru({"a_param": np.zeros(8), "input_gate": gate, "a_gate": gate}).options
    {'d_model': 8, 'heads': 4}
    """
    arrays = check_keys("RGLRU", select(state_dict, prefix), _NAMES)
    H = arrays["a_param"].size
    heads = arrays["a_gate.b"].shape[0] if arrays["a_gate.b"].ndim else 0
    if heads < 1 or H % heads:
        msg = f"RGLRU: a_gate.b has {heads} heads; expected a divisor of the width {H}"
        raise SSMError(msg)
    block = H // heads
    shapes: dict[str, tuple[int, ...]] = {"a_param": (H,)}
    shapes |= {name: (heads, block, block) for name in ("input_gate.w", "a_gate.w")}
    shapes |= {name: (heads, block) for name in ("input_gate.b", "a_gate.b")}
    check_shapes("RGLRU", arrays, shapes)
    params = {
        "a_param": arrays["a_param"],
        "input_gate": {"w": arrays["input_gate.w"], "b": arrays["input_gate.b"]},
        "a_gate": {"w": arrays["a_gate.w"], "b": arrays["a_gate.b"]},
    }
    return Reading("RGLRU", {"d_model": H, "heads": heads}, params)


def reset_from_positions(segment_pos: Array) -> Array:
    """Return the resets of packed documents: position 0 starts a new one.

    Parameters
    ----------
    segment_pos : integer (..., L)
        Position of each sample within its document.

    Returns
    -------
    bool (..., L)

    Raises
    ------
    SSMError
        Something that is no array of integers.

    Notes
    -----
    A sequence whose first position is not 0 continues an earlier one: run it with that state, or,
    as the original does without one, from zero with first_step_reset=False.

    Examples
    --------
    >>> import numpy as np
    >>> reset_from_positions(np.asarray([0, 1, 2, 0, 1]))
    array([ True, False, False,  True, False])
    """
    check_array("reset_from_positions", "segment_pos", segment_pos)
    xp = namespace(segment_pos)
    if not xp.isdtype(segment_pos.dtype, "integral"):
        msg = f"reset_from_positions: segment_pos has dtype {segment_pos.dtype}; expected integers"
        raise SSMError(msg)
    return segment_pos == 0

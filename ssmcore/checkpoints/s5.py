"""Checkpoints of lindermanlab/S5: the ``S5SSM`` of s5/ssm.py.

Paper: Smith, Warrington, Linderman 2022 (S5, arXiv:2208.04933).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssmcore._arguments import check_flag, check_positive
from ssmcore.checkpoints.reading import Reading, check_keys, check_shapes, select
from ssmcore.errors import check_choice
from ssmcore.typing import Params

__all__ = ["read_s5"]


def read_s5(
    params: Mapping[str, Any],
    *,
    prefix: str = "",
    conj_sym: bool = True,
    clip_eigs: bool = False,
    discretization: str = "zoh",
    bidirectional: bool = False,
    step_rescale: float = 1.0,
) -> Reading:
    """Read an ``S5SSM``: x' = diag(Lambda) x + B u, y = 2 Re(C x) + D u (Re without conj_sym).

    Parameters
    ----------
    params : mapping of str to array
        Lambda_re, Lambda_im (P), B (P, H, 2), C (H, P, 2), D (H), log_step (P, 1); nested as flax
        has it, or flat with "/" or ".". Bidirectional: C1 and C2 (H, P, 2), or C (H, 2P, 2) with
        the forward half first. Any real dtype, of any array library.
    prefix : str
        Where the layer sits, e.g. "encoder/layers_0/seq".
    conj_sym, clip_eigs, discretization, bidirectional, step_rescale
        The original's options; they are not in the checkpoint. ``discretization`` is "zoh" or
        "bilinear"; ``step_rescale`` multiplies the time step.

    Returns
    -------
    Reading
        "S5", or "Bidirectional" with skip_current=False: u[t] counts in both directions, D once.

    Raises
    ------
    SSMError
        Missing, unexpected or misshapen arrays; an unknown discretization; a flag that is not
        True or False.

    Examples
    --------
    >>> import numpy as np
    >>> P, H = 4, 3
    >>> found = {"Lambda_re": -np.ones(P), "Lambda_im": np.ones(P), "B": np.ones((P, H, 2)),
    ...          "C": np.ones((H, P, 2)), "D": np.ones(H), "log_step": np.zeros((P, 1))}
    >>> read_s5({"seq": found}, prefix="seq").options["d_state"]
    8
    """
    check_choice("read_s5", "discretization", discretization, ("zoh", "bilinear"))
    check_positive("read_s5", step_rescale=step_rescale)
    check_flag("read_s5", conj_sym=conj_sym, clip_eigs=clip_eigs, bidirectional=bidirectional)
    found = select(params, prefix)
    outputs = ["C1", "C2"] if bidirectional and "C" not in found else ["C"]
    names = ["Lambda_re", "Lambda_im", "B", "D", "log_step", *outputs]
    arrays = check_keys("S5", found, names)
    C = _directions(arrays, outputs, bidirectional)
    P, H = arrays["Lambda_re"].size, arrays["D"].size
    inner = {
        "d_model": H,
        "d_state": 2 * P if conj_sym else P,
        "conj_sym": conj_sym,
        "clip_eigs": clip_eigs,
        "discretization": discretization,
    }
    forward: Params = {
        "log_dt": arrays["log_step"][:, 0] + np.log(step_rescale),
        "Lambda_re": arrays["Lambda_re"],
        "Lambda_im": arrays["Lambda_im"],
        "B": arrays["B"],
        "C": C[0],
        "D": arrays["D"],
    }
    if not bidirectional:
        return Reading("S5", inner, forward)
    options = {"inner": "S5", "inner_options": inner, "share": "dynamics", "skip_current": False}
    return Reading("Bidirectional", options, {"causal": forward, "anticausal": {"C": C[1]}})


def _directions(
    arrays: Mapping[str, np.ndarray], outputs: list[str], bidirectional: bool
) -> list[np.ndarray]:
    """Check the shapes; return C of each direction."""
    P, H = arrays["Lambda_re"].size, arrays["D"].size
    columns = 2 * P if bidirectional and outputs == ["C"] else P
    shapes: dict[str, tuple[int, ...]] = {
        "Lambda_re": (P,),
        "Lambda_im": (P,),
        "B": (P, H, 2),
        "D": (H,),
        "log_step": (P, 1),
    }
    check_shapes("S5", arrays, shapes | dict.fromkeys(outputs, (H, columns, 2)))
    if len(outputs) == 2 or not bidirectional:
        return [arrays[name] for name in outputs]
    return [arrays["C"][:, :P], arrays["C"][:, P:]]

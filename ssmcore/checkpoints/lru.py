"""Checkpoints of NicolasZucchet/minimal-LRU: its LRU layer.

Paper: Orvieto et al. 2023 (Resurrecting recurrent neural networks, arXiv:2303.06349).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssmcore.checkpoints.reading import Reading, check_keys, check_shapes, select

__all__ = ["read_lru"]

_NAMES = ("nu_log", "theta_log", "gamma_log", "B_re", "B_im", "C_re", "C_im", "D")


def read_lru(params: Mapping[str, Any], *, prefix: str = "") -> Reading:
    """Read an ``LRU``: h_t = lambda h_{t-1} + gamma (B u_t), y_t = Re(C h_t) + D u_t.

    lambda = exp(-exp(nu_log) + i exp(theta_log)), gamma = exp(gamma_log); no conjugate pairs.

    Parameters
    ----------
    params : mapping of str to array
        nu_log, theta_log, gamma_log (N), B_re, B_im (N, H), C_re, C_im (H, N), D (H); nested as
        flax has it, or flat with "/" or ".".
    prefix : str
        Where the layer sits, e.g. "encoder/layers_0/seq".

    Returns
    -------
    Reading
        "LRU".

    Raises
    ------
    SSMError
        Missing, unexpected or misshapen arrays.

    Examples
    --------
    >>> import numpy as np
    >>> N, H = 4, 3
    >>> found = {"B_re": np.ones((N, H)), "B_im": np.zeros((N, H)), "C_re": np.ones((H, N)),
    ...          "C_im": np.zeros((H, N)), "D": np.ones(H), "nu_log": np.zeros(N),
    ...          "theta_log": np.zeros(N), "gamma_log": np.zeros(N)}
    >>> read_lru(found).options
    {'d_model': 3, 'd_state': 4}
    """
    arrays = check_keys("LRU", select(params, prefix), _NAMES)
    N, H = arrays["nu_log"].size, arrays["D"].size
    shapes: dict[str, tuple[int, ...]] = {"nu_log": (N,), "D": (H,)}
    shapes |= {"theta_log": (N,), "gamma_log": (N,)}
    shapes |= dict.fromkeys(("B_re", "B_im"), (N, H)) | dict.fromkeys(("C_re", "C_im"), (H, N))
    check_shapes("LRU", arrays, shapes)
    own = {name: arrays[name] for name in ("nu_log", "theta_log", "gamma_log", "D")}
    pairs = {x: np.stack((arrays[f"{x}_re"], arrays[f"{x}_im"]), axis=-1) for x in ("B", "C")}
    return Reading("LRU", {"d_model": H, "d_state": N}, {**own, **pairs})

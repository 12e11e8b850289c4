"""Initial decays of the models that start in discrete time: LRU and RG-LRU.

Papers: LRU (Orvieto et al. 2023), arXiv 2303.06349, Lemma 3.2 and Section 3.4; Griffin (De et
al. 2024), arXiv 2402.19427, Section 2.4.
"""

from __future__ import annotations

import numpy as np

from ssmcore._arguments import check_positive, checked_generator, is_finite
from ssmcore.errors import SSMError, check_choice
from ssmcore.initialization.hippo import RealArray, check_size
from ssmcore.initialization.timescale import inverse_softplus

__all__ = ["rglru_a_param", "ring"]


def ring(
    rng: np.random.Generator,
    N: int,
    r_min: float = 0.0,
    r_max: float = 1.0,
    max_phase: float = 6.28,
) -> tuple[RealArray, RealArray, RealArray]:
    """Draw LRU eigenvalues uniformly, in area, on a ring of the unit disk, or on a sector of it.

    ``lambda = exp(-exp(nu_log) + i exp(theta_log))``, with u_1, u_2 ~ U(0, 1)::

        |lambda|^2 = u_1 (r_max^2 - r_min^2) + r_min^2
        arg lambda = max_phase u_2
        gamma_log  = log sqrt(1 - |lambda|^2)

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    N : int
        Number of eigenvalues.
    r_min, r_max : float
        Inner and outer radius, 0 <= r_min <= r_max <= 1; neither both 0 nor both 1.
    max_phase : float
        Largest phase, positive, in radians.

    Returns
    -------
    nu_log, theta_log, gamma_log : (N,) float64
        Parameters of the LRU. All finite: u_1 and u_2 exclude 0 and 1.

    Raises
    ------
    SSMError
        If rng is no generator, N no positive integer, or the radii or the phase are out of range.

    Notes
    -----
    O(N). LRU Lemma 3.2 and eq. (7). gamma is the factor that gives every state unit variance
    under white noise; it is found from log|lambda| by expm1, without cancellation near the unit
    circle.

    Examples
    --------
    >>> nu_log, theta_log, gamma_log = ring(np.random.default_rng(0), 5, r_min=0.9, r_max=0.99)
    >>> radius = np.exp(-np.exp(nu_log))
    >>> bool(np.all((radius > 0.9) & (radius < 0.99)))
    True
    >>> bool(np.allclose(np.exp(gamma_log), np.sqrt(1 - radius**2)))
    True
    """
    rng = checked_generator("ring", rng)
    check_size("ring", "N", N)
    _check_radii("ring", "r_min", r_min, "r_max", r_max)
    check_positive("ring", max_phase=max_phase)
    log_radius: RealArray = 0.5 * _log_between(_open_uniform(rng, N), r_min**2, r_max**2)
    theta_log: RealArray = np.log(max_phase * _open_uniform(rng, N))
    nu_log: RealArray = np.log(-log_radius)
    gamma_log: RealArray = 0.5 * np.log(-np.expm1(2 * log_radius))
    return nu_log, theta_log, gamma_log


A_INITIALIZATIONS = ("a", "a^c", "grid", "exp")
EXP_GRID = (-4.323, -9.0)


def rglru_a_param(
    rng: np.random.Generator,
    H: int,
    c: float = 8.0,
    kind: str = "a",
    min_rad: float = 0.9,
    max_rad: float = 0.999,
) -> RealArray:
    """Draw the recurrence parameter of the RG-LRU.

    ``softplus(a_param) = -log a``, and ``a_t = a^(c r_t)`` for a gate r_t::

        a     a^2 ~ U(min_rad^2, max_rad^2)      as RecurrentGemma's code
        a^c   a^c ~ U(min_rad, max_rad)          as the Griffin paper

    or an even grid over the channels, without chance, as the Hawk of the control overview::

        grid  a^c from min_rad to max_rad
        exp   a_param from -4.323 to -9: a^8 from 0.9 to 0.999, most of them near 1

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    H : int
        Number of channels.
    c : float
        Exponent of the gate, positive; without effect when kind is "a".
    kind : {"a", "a^c", "grid", "exp"}
        Which quantity lies between the bounds, and how.
    min_rad, max_rad : float
        Bounds, without effect when kind is "exp"; 0 <= min_rad <= max_rad <= 1, neither both 0
        nor both 1.

    Returns
    -------
    a_param : (H,) float64
        Parameter, the negative of the paper's Lambda.

    Raises
    ------
    SSMError
        For an rng that is no generator, an unknown kind, a bad H or c, or bounds out of range.

    Notes
    -----
    O(H). Griffin Section 2.4. With the code's "a" and c = 8 memory starts much shorter: at r_t = 1
    a_t lies in [0.430, 0.992] instead of [0.9, 0.999].

    Examples
    --------
    >>> a_param = rglru_a_param(np.random.default_rng(0), 4, kind="a^c")
    >>> a = np.exp(-np.log1p(np.exp(a_param)))
    >>> bool(np.all((a**8 > 0.9) & (a**8 < 0.999)))
    True
    """
    check_choice("rglru_a_param", "kind", kind, A_INITIALIZATIONS)
    rng = checked_generator("rglru_a_param", rng)
    check_size("rglru_a_param", "H", H)
    _check_radii("rglru_a_param", "min_rad", min_rad, "max_rad", max_rad)
    check_positive("rglru_a_param", c=c)
    if kind == "exp":
        return np.linspace(*EXP_GRID, H)
    u = np.linspace(0.0, 1.0, H) if kind == "grid" else _open_uniform(rng, H)
    if kind == "a":
        log_a = 0.5 * _log_between(u, min_rad**2, max_rad**2)
    else:
        log_a = _log_between(u, min_rad, max_rad) / c
    return inverse_softplus(-log_a)


def _check_radii(owner: str, low_name: str, low: float, high_name: str, high: float) -> None:
    numbers = is_finite(low) and is_finite(high)
    if numbers and 0 <= low <= high <= 1 and low < 1 and high > 0:
        return
    msg = (
        f"{owner}: {low_name} is {low!r} and {high_name} {high!r}; expected "
        f"0 <= {low_name} <= {high_name} <= 1, not both 0 and not both 1"
    )
    raise SSMError(msg)


def _open_uniform(rng: np.random.Generator, size: int) -> RealArray:
    """Draw from the odd multiples of 2^-53: uniform, and never 0 or 1."""
    return np.asarray((2.0 * rng.integers(0, 2**52, size) + 1.0) / 2.0**53, dtype=np.float64)


def _log_between(u: RealArray, low: float, high: float) -> RealArray:
    """Return log(low + u (high - low)), strictly negative for u < 1, accurate near 0 and 1."""
    value = low + u * (high - low)
    gap = (1 - high) + (1 - u) * (high - low)
    near_one = gap < 0.5
    log: RealArray = np.where(near_one, np.log1p(-np.where(near_one, gap, 0.5)), np.log(value))
    return log

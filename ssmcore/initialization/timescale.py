"""Initial step sizes: log-uniform timescales and the bias that gives them through a softplus.

Papers: S4 (Gu, Goel, Ré 2022), arXiv 2111.00396; Mamba (Gu, Dao 2023), arXiv 2312.00752,
Section 3.6.
"""

from __future__ import annotations

import numpy as np

from ssmcore._arguments import checked_generator, is_finite
from ssmcore.errors import SSMError
from ssmcore.initialization.hippo import RealArray

__all__ = ["inverse_softplus", "log_uniform_timescale", "softplus_bias"]


def log_uniform_timescale(
    rng: np.random.Generator,
    shape: int | tuple[int, ...],
    dt_min: float = 1e-3,
    dt_max: float = 0.1,
) -> RealArray:
    """Draw the logarithm of step sizes, uniform between two bounds.

    ``log dt ~ U[log dt_min, log dt_max]``

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : int or tuple of int
        Shape of the result.
    dt_min, dt_max : float
        Bounds, 0 < dt_min <= dt_max.

    Returns
    -------
    log_dt : shape, float64
        Logarithms of the step sizes.

    Raises
    ------
    SSMError
        If rng is no generator, the shape none of an array, or the bounds are not finite, not
        positive or not in order.

    Examples
    --------
    >>> log_dt = log_uniform_timescale(np.random.default_rng(0), (4,), 1e-3, 0.1)
    >>> bool(np.all((np.exp(log_dt) >= 1e-3) & (np.exp(log_dt) <= 0.1)))
    True
    """
    owner = "log_uniform_timescale"
    rng = checked_generator(owner, rng)
    _check_shape(owner, shape)
    if not (is_finite(dt_min) and is_finite(dt_max) and 0 < dt_min <= dt_max):
        msg = f"dt_min is {dt_min!r} and dt_max {dt_max!r}; expected finite 0 < dt_min <= dt_max"
        raise SSMError(msg)
    return np.asarray(rng.uniform(np.log(dt_min), np.log(dt_max), shape))


def _check_shape(owner: str, shape: object) -> None:
    """Raise SSMError unless ``shape`` is a size or a tuple of sizes."""
    sizes = shape if isinstance(shape, tuple) else (shape,)
    if not all(
        isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 0 for n in sizes
    ):
        msg = f"{owner}: shape is {shape!r:.50}; expected whole numbers of at least 0"
        raise SSMError(msg)


def inverse_softplus(x: RealArray | float) -> RealArray:
    """Return the y whose softplus is x.

    ``y = log(e^x - 1) = x + log(-expm1(-x))``, the second form neither overflows nor cancels.

    Parameters
    ----------
    x : (...) float64
        Positive numbers.

    Returns
    -------
    y : (...) float64
        ``softplus(y) = log(1 + e^y) = x``.

    Raises
    ------
    SSMError
        If x is no number or array of numbers, or an x is not positive and finite.

    Examples
    --------
    >>> round(float(inverse_softplus(np.log(2.0))), 12)
    0.0
    >>> round(float(inverse_softplus(1e-3)), 6)
    -6.907255
    >>> float(inverse_softplus(1000.0))
    1000.0
    """
    try:
        x = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"inverse_softplus: x is {x!r:.50}; expected real numbers above 0 ({error})"
        raise SSMError(msg) from None
    valid = (x > 0) & (x < np.inf)
    if not valid.all():
        msg = (
            f"inverse_softplus: x contains {x[~valid].flat[0]}; expected finite numbers > 0, "
            "the range of softplus"
        )
        raise SSMError(msg)
    return np.asarray(x + np.log(-np.expm1(-x)))


def softplus_bias(
    rng: np.random.Generator,
    shape: int | tuple[int, ...],
    dt_min: float = 1e-3,
    dt_max: float = 0.1,
    floor: float = 1e-4,
) -> RealArray:
    """Draw the bias of a softplus so that its output starts log-uniform: Mamba's dt bias.

    ``softplus(bias) = max(dt, floor)``, ``log dt ~ U[log dt_min, log dt_max]``

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : int or tuple of int
        Shape of the result.
    dt_min, dt_max : float
        Bounds, 0 < dt_min <= dt_max.
    floor : float
        Smallest step size, >= 0.

    Returns
    -------
    bias : shape, float64
        Bias.

    Raises
    ------
    SSMError
        If the floor is not finite or negative, and for what `log_uniform_timescale` refuses.

    Notes
    -----
    Mamba Section 3.6 says uniform; its code draws log-uniformly, as here.

    Examples
    --------
    >>> bias = softplus_bias(np.random.default_rng(0), 3, 0.01, 0.01)
    >>> np.log1p(np.exp(bias)).round(6).tolist()
    [0.01, 0.01, 0.01]
    """
    if not (is_finite(floor) and floor >= 0):
        msg = f"softplus_bias: floor is {floor!r}; expected a finite number >= 0"
        raise SSMError(msg)
    dt = np.exp(log_uniform_timescale(rng, shape, dt_min, dt_max))
    return inverse_softplus(np.maximum(dt, floor))

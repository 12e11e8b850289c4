"""Reference convolutions in the array API standard."""

from __future__ import annotations

from ssmcore import arrays, backend
from ssmcore.typing import Array

__all__ = ["causal_convolution", "short_convolution"]


def _fft_length(shortest: int) -> int:
    """Return the smallest of 2^k, 3 2^k, 5 2^k, 9 2^k, 15 2^k that is at least ``shortest``."""
    candidates = (odd << max(0, (-(-shortest // odd) - 1).bit_length()) for odd in (1, 3, 5, 9, 15))
    return min(candidates)


def causal_convolution(u: Array, kernel: Array) -> Array:
    """See ssmcore.causal_convolution."""
    xp = arrays.namespace(u, kernel)
    length, taps = u.shape[-2], kernel.shape[-2]
    if taps == 0 or 0 in u.shape:
        return u * xp.zeros(kernel.shape[-1:], dtype=kernel.dtype, device=arrays.device(u))
    if backend.is_open(u, length):
        u, kernel = xp.matrix_transpose(u), xp.matrix_transpose(kernel)  # or strides are compared
        return xp.matrix_transpose(_product(u, kernel, length + taps, -1)[..., :length])
    kernel = kernel[..., : min(length, taps), :]
    n = _fft_length(length + min(length, taps) - 1)
    return _product(u, kernel, n, -2)[..., :length, :]


def _product(u: Array, kernel: Array, n: int, axis: int) -> Array:
    """Return the circular convolution of ``n`` steps."""
    xp = arrays.namespace(u, kernel)
    if arrays.is_complex(u) or arrays.is_complex(kernel):
        dtype = arrays.complex_dtype(xp, arrays.real_dtype(xp, u.dtype))
        u_hat = xp.fft.fft(xp.astype(u, dtype, copy=False), n=n, axis=axis)
        kernel_hat = xp.fft.fft(xp.astype(kernel, dtype, copy=False), n=n, axis=axis)
        return xp.fft.ifft(u_hat * kernel_hat, n=n, axis=axis)
    product = xp.fft.rfft(u, n=n, axis=axis) * xp.fft.rfft(kernel, n=n, axis=axis)
    return xp.fft.irfft(product, n=n, axis=axis)


def short_convolution(
    u: Array, weight: Array, bias: Array | None, state: Array | None
) -> tuple[Array, Array]:
    """See ssmcore.short_convolution."""
    xp = arrays.namespace(u, weight)
    taps, length = weight.shape[0], u.shape[-2]
    if state is None:
        shape = (*u.shape[:-2], taps - 1, u.shape[-1])
        state = xp.zeros(shape, dtype=u.dtype, device=arrays.device(u))
    past = xp.concat((state, u), axis=-2)
    y = xp.zeros_like(u)
    for k in range(taps):
        y = y + weight[k, :] * past[..., k : k + length, :]
    return (y if bias is None else y + bias), past[..., length:, :]

"""Peers of the kernels and of the S4D layer: plain torch, as first written down in the papers."""

from __future__ import annotations

from typing import Any

__all__ = ["cauchy", "fft_pipeline", "output_vector", "vandermonde"]


def vandermonde(log_a: Any, coefficients: Any, length: int) -> Any:
    """K (H, L) = Re sum_n c_n exp(l log a_n), the table of powers formed at full size."""
    import torch

    powers = torch.exp(log_a.unsqueeze(-1) * torch.arange(length))
    return torch.einsum("hn,hnl->hl", coefficients, powers).real


def output_vector(dt: Any, Lambda: Any, P: Any, C: Any, length: int) -> Any:
    """C (I - A_bar^L) on the stored half, in complex128: S4 forms it once, at the start."""
    import torch

    full = torch.cat((Lambda, Lambda.conj()), -1).to(torch.complex128)
    p = torch.cat((P[0], P[0].conj()), -1).to(torch.complex128)
    A = torch.diag_embed(full) - p[:, :, None] * p[:, None, :].conj()
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    half = 0.5 * dt.to(torch.float64)[:, None, None] * A
    A_bar = torch.linalg.solve(eye - half, eye + half)
    c = torch.cat((C, C.conj()), -1).to(torch.complex128)
    left = c - (c[:, None, :] @ torch.linalg.matrix_power(A_bar, length))[:, 0]
    return left[:, : C.shape[-1]].to(C.dtype)


def cauchy(dt: Any, Lambda: Any, P: Any, B: Any, C_tilde: Any, length: int) -> Any:
    """K (H, L) by four Cauchy products over the roots of unity, Woodbury, and one inverse FFT."""
    import torch

    nodes = torch.arange(length // 2 + 1, dtype=torch.float64, device=dt.device)
    angle = nodes * (-2 * torch.pi / length)
    omega = torch.polar(torch.ones_like(angle), angle)
    z = (2 * (1 - omega) / (1 + omega)).to(Lambda.dtype)
    poles = dt[:, None] * torch.cat((Lambda, Lambda.conj()), -1)

    def sums(left: Any, right: Any) -> Any:
        v = torch.cat((left * right, (left * right).conj()), -1)
        return dt[:, None] * (v.unsqueeze(-1) / (z - poles.unsqueeze(-1))).sum(-2)

    p = P[0]
    k = sums(C_tilde, B) - sums(C_tilde, p) * sums(p.conj(), B) / (1 + sums(p.conj(), p))
    return torch.fft.irfft(k * (2 / (1 + omega)).to(k.dtype), n=length)


def fft_pipeline(u: Any, kernel: Any, D: Any) -> Any:
    """y (B, H, L) = irfft(rfft(u) rfft(K)) + D u, both padded to 2 L."""
    import torch

    length = u.shape[-1]
    product = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
    return torch.fft.irfft(product, n=2 * length)[..., :length] + D[:, None] * u

"""Peers that run on a GPU without being built: Triton kernels of others."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import need

__all__ = ["accelerated_scan", "fla_hgrn", "mamba_ssm"]


def accelerated_scan(a: Any, b: Any) -> Any:
    """``accelerated_scan.scalar`` or ``.complex``, on its own layout (B, C, L)."""
    module = "complex" if a.is_complex() else "scalar"
    return need(f"accelerated_scan.{module}").scan(a, b)


def fla_hgrn(log_a: Any, b: Any) -> Any:
    """``chunk_hgrn`` of flash-linear-attention: gates as logarithms, (B, L, C)."""
    return need("fla.ops.hgrn").chunk_hgrn(b, log_a)[0]


def mamba_ssm(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any) -> Any:
    """``selective_scan_fn`` of mamba-ssm: u, delta (B, H, L), B, C (B, N, L)."""
    scan = need("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    return scan(u, delta, A, B, C, D)

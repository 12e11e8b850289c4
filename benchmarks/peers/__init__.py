"""Code of others that does the same work, each as it is called in practice."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.work import MissingPeer

__all__ = ["INSTALL", "need"]

INSTALL = {
    "mambapy": "pip install --no-deps mambapy",
    "transformers": "pip install transformers",
    "s5": "pip install s5-pytorch",
    "accelerated_scan": "pip install --no-deps accelerated-scan",
    "fla": "pip install flash-linear-attention",
    "mamba_ssm": "pip install --no-deps mamba-ssm",
    "torch": 'pip install "ssmcore[torch]"',
    "jax": 'pip install "ssmcore[jax]"',
}


def need(module: str) -> Any:
    """Return a module, or raise MissingPeer that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        msg = f"{error}; install it with: {INSTALL[package]}"
        raise MissingPeer(msg) from error

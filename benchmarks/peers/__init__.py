"""Code of others that does the same work, each as it is called in practice."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.work import MissingPeerError

__all__ = ["PEERS", "need"]

PEERS = {
    "mambapy": "pip install --no-deps mambapy",
    "transformers": "pip install transformers",
    "s5-pytorch": "pip install s5-pytorch",
    "accelerated-scan": "pip install --no-deps accelerated-scan",
    "flash-linear-attention": "pip install flash-linear-attention",
    "mamba-ssm": "pip install --no-deps mamba-ssm",
}
OTHERS = {"torch": 'pip install "ssmcore[torch]"', "jax": 'pip install "ssmcore[jax]"'}
DISTRIBUTION = {"s5": "s5-pytorch", "fla": "flash-linear-attention"}


def need(module: str) -> Any:
    """Return a module, or raise MissingPeerError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        name = DISTRIBUTION.get(package, package.replace("_", "-"))
        msg = f"{name} is not installed ({error}); install it with: {(PEERS | OTHERS)[name]}"
        raise MissingPeerError(msg) from error

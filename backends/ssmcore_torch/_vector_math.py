"""The functions that torch takes from MKL's vector library, each called once by one thread.

The first call of such a function chooses the code for this processor. Where several threads make it
at once, one of them may run code that is right to 12 bits only, in float64 to 28, and nothing says
so (pytorch/pytorch#188792, MKL 2024.2). Importing this module makes the first calls.
"""

from __future__ import annotations

import torch

__all__ = ["FUNCTIONS"]

FUNCTIONS = (
    *("acos", "asin", "atan", "cos", "cosh", "erf", "erfc", "exp", "expm1"),
    *("log", "log10", "log1p", "log2", "sin", "sinh", "sqrt", "tan", "tanh"),
)

with torch.no_grad():
    for _dtype in (torch.float32, torch.float64):
        for _name in FUNCTIONS:
            getattr(torch, _name)(torch.ones(1, dtype=_dtype, device="cpu"))

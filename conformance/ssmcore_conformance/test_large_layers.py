"""Every layer beyond the small shapes: long, with many channels, all options at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore_conformance.models import Case, expected, inputs
from ssmcore_conformance.running import call, compiled
from ssmcore_conformance.tolerances import EQUIVALENCE, check

H, L = 33, 300
CASES = {
    "LSSL": Case(ssm.LSSL(H, d_state=4), {}),
    "S4": Case(ssm.S4(H, d_state=4), {}),
    "S4D": Case(ssm.S4D(H, d_state=34), {}),
    "S5": Case(ssm.S5(H, d_state=34), {}),
    "LRU": Case(ssm.LRU(H, d_state=34), {}),
    "S6": Case(ssm.S6(H, d_state=17), {}),
    "RGLRU": Case(ssm.RGLRU(H, heads=3), {}),
}
LENGTHS = np.asarray([L, 211])
RESET = np.random.default_rng(1).uniform(size=(2, L)) < 1 / 50
OPTIONS: dict[str, dict[str, Any]] = {
    "no options": {},
    "lengths": {"lengths": LENGTHS},
    "reset": {"reset": RESET},
    "reset, lengths": {"reset": RESET, "lengths": LENGTHS},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", CASES)
def test_value(ssm_eager: Any, worst: Any, name: str, options: str) -> None:
    """The oracle's outputs and states in every mode that takes the options, to a share of the peak.

    The bar is that between the modes, in float64. array_api_strict, which computes as NumPy does,
    takes no single steps.
    """
    case, given = CASES[name], OPTIONS[options]
    params, u = case.layer.init(4, dtype="float64"), inputs((2, L, H))
    y, state = expected(case, params, u, **given)
    tried = [*case.modes, "auto"]
    if ssm_eager.name == "array_api_strict":
        tried.remove("recurrence")
    for mode in tried:
        if mode == "convolution" and "reset" in given:
            continue
        run = compiled(ssm_eager.name, case.layer, mode, True)
        rest = (None, given.get("reset"), given.get("lengths"))
        got, last = call(ssm_eager, run, params, u, *rest)
        for x, value in ((got, y), *((last[key], x) for key, x in state.items())):
            limit = EQUIVALENCE["float64"] * np.abs(value).max()
            check(worst, f"{name}, large: {mode}", ssm_eager.name, "float64", x, value, limit)

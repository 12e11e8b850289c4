"""Recorded data that ships with the package. Source and licence: ``LICENSE-ecg.md``."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

__all__ = ["electrocardiogram"]

SAMPLING_RATE = 360.0  # Hz
ADC_ZERO = 1024  # ADC units at 0 mV
ADC_GAIN = 200.0  # ADC units per mV


def electrocardiogram() -> tuple[NDArray[np.float64], float]:
    """Load 22.8 s of a recorded electrocardiogram.

    series = (raw - 1024) / 200

    Returns
    -------
    series : ndarray (8192,) float64
        Lead MLII of a person with ventricular premature beats, in mV.
    sampling_rate : float
        360.0 Hz.

    Notes
    -----
    Record 208, from 19:35 on, of the MIT-BIH Arrhythmia Database (Moody and Mark 2001; PhysioNet:
    Goldberger et al. 2000), Open Data Commons Attribution License v1.0; see ``LICENSE-ecg.md``.

    Examples
    --------
    >>> from ssmcore.data import electrocardiogram
    >>> series, rate = electrocardiogram()
    >>> series[:3], series.shape, rate
    (array([-0.245, -0.215, -0.185]), (8192,), 360.0)
    """
    with (files(__name__) / "ecg.npy").open("rb") as file:
        raw = np.load(file, allow_pickle=False)
    return (raw.astype(np.float64) - ADC_ZERO) / ADC_GAIN, SAMPLING_RATE

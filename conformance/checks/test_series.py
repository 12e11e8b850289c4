"""ssmcore.series and ssmcore.data: every file kind, every bad input, and the shipped recording."""

from __future__ import annotations

import hashlib
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssmcore import series
from ssmcore.data import electrocardiogram
from ssmcore.errors import SSMError

EPS = float(np.finfo(np.float64).eps)


def write_wav(path: Path, samples: list[list[int]], width: int) -> Path:
    """Little-endian PCM, written integer by integer; 8 bit is unsigned with 128 as zero."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(samples[0]))
        file.setsampwidth(width)
        file.setframerate(360)
        for value in (value for frame in samples for value in frame):
            stored = value + 128 if width == 1 else value
            file.writeframes(stored.to_bytes(width, "little", signed=width > 1))
    return path


# ------------------------------------------------------------------------------- good files


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "float16", "float32", ">f8"])
def test_npy_keeps_every_value(tmp_path: Path, dtype: str) -> None:
    values = np.arange(12).reshape(6, 2).astype(dtype)
    np.save(tmp_path / "two.npy", values)
    np.save(tmp_path / "one.npy", values[:, 0])
    two, one = series.load(tmp_path / "two.npy"), series.load(str(tmp_path / "one.npy"))
    assert two.dtype == one.dtype == np.float64
    np.testing.assert_array_equal(two, values)
    np.testing.assert_array_equal(one, values[:, :1])


def test_npy_in_fortran_order(tmp_path: Path) -> None:
    values = np.asfortranarray(np.arange(6.0).reshape(3, 2))
    np.save(tmp_path / "f.npy", values)
    np.testing.assert_array_equal(series.load(tmp_path / "f.npy"), values)


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3,-4.5e1\n",
        "left,right\n1,2\n3,-45\n",
        "\ufeffl,r\r\n1, 2\r\n\r\n3,-45",
        '"1","2"\n3,-45\n',
    ],
)
def test_csv_with_and_without_header(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8", newline="")
    np.testing.assert_array_equal(series.load(path), [[1, 2], [3, -45]])


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_of_every_width(tmp_path: Path, width: int) -> None:
    full = 2 ** (8 * width - 1)
    samples = [[-full, full - 1], [0, 1], [-1, full // 2]]
    loaded = series.load(write_wav(tmp_path / "a.WAV", samples, width))
    np.testing.assert_array_equal(loaded, np.array(samples) / full)  # exact: powers of two


# -------------------------------------------------------------------------------- bad files

CSV_PROBLEMS = {
    "1,2\n3,oops\n": ("line 2, column 2", "'oops'"),
    "t,x\n1,2\n\n3,\n": ("line 4, column 2", "''"),
    "1,x\n2,3\n": ("line 1, column 2", "'x'"),
    "a,b\nc,d\n1,2\n": ("line 2, column 1", "'c'"),
    "1_000\n2\n3_0\n": ("line 3, column 1", "'3_0'"),
    "1,2\n3\n": ("line 2", "1 columns; expected 2"),
    "x;y\n1;2\n": ("line 1, column 1", "'x;y'", "semicolon separated? expected commas"),
    "1;2\n3;4\n": ("line 1, column 1: '1;2' is no number", "semicolon separated?"),
    "x\ty\n": ("tab separated?",),
    "x\n1,5;2,5\n": ("column 2: '5;2' is not a number", "semicolon separated?"),
    "x, Time [s]\n1,2\n": ("line 1, column 2: ' Time [s]' is no channel", "remove the column"),
    "date,x\n2024-01-01,2\n": ("line 1, column 1: 'date' is no channel",),
    "time;x\n0;1\n": ("semicolon separated?",),
    "1\nnan\ninf\n": ("2 of 3 values", "index (1, 0)"),
    "": ("no values",),
    "left,right\n": ("no values",),
}


@pytest.mark.parametrize("text", CSV_PROBLEMS)
def test_bad_csv_says_where(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SSMError) as caught:
        series.load(path)
    for part in (str(path), *CSV_PROBLEMS[text]):
        assert part in str(caught.value)


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("größe\n1\n".encode("latin-1"))
    with pytest.raises(SSMError, match="UTF-8"):
        series.load(tmp_path / "a.csv")


NPY_PROBLEMS: dict[str, tuple[Any, str]] = {
    "complex": (np.ones(3, complex), "dtype is complex128"),
    "bool": (np.ones(3, bool), "dtype is bool"),
    "text": (np.array(["a", "b"]), "dtype is <U1"),
    "object": (np.array([1, None], dtype=object), "not a readable .npy file"),
    "scalar": (np.array(1.0), r"shape is \(\)"),
    "three axes": (np.ones((2, 2, 2)), r"shape is \(2, 2, 2\)"),
    "no samples": (np.ones((0, 3)), "no values"),
    "no channels": (np.ones((3, 0)), "no values"),
    "nan": (np.array([[1.0, 2.0], [3.0, np.nan]]), r"1 of 4 .* nan, at index \(1, 1\)"),
    "infinite": (np.array([-np.inf, 0.0]), r"-inf, at index \(0, 0\)"),
}


@pytest.mark.parametrize("problem", NPY_PROBLEMS)
def test_bad_npy(tmp_path: Path, problem: str) -> None:
    values, message = NPY_PROBLEMS[problem]
    np.save(tmp_path / "bad.npy", values)
    with pytest.raises(SSMError, match=message):
        series.load(tmp_path / "bad.npy")


@pytest.mark.parametrize("kept", [0, 5, 60, 128, 150])
def test_npy_cut_off(tmp_path: Path, kept: int) -> None:
    np.save(tmp_path / "whole.npy", np.ones(100))
    (tmp_path / "part.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:kept])
    with pytest.raises(SSMError, match=r"part.npy.*cut off"):
        series.load(tmp_path / "part.npy")


@pytest.mark.parametrize("kept", [0, 20, 43, 47, 50])
def test_wav_cut_off(tmp_path: Path, kept: int) -> None:
    whole = write_wav(tmp_path / "whole.wav", [[1, 2]] * 9, 2)  # 44 bytes of header
    (tmp_path / "part.wav").write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(SSMError, match=r"part\.wav: .*(\(.+\)|cut off)"):
        series.load(tmp_path / "part.wav")


def test_wav_that_is_not_pcm_or_empty(tmp_path: Path) -> None:
    raw = bytearray(write_wav(tmp_path / "a.wav", [[1]], 2).read_bytes())
    raw[20:22] = (6).to_bytes(2, "little")  # the format tag: 6 is A-law
    (tmp_path / "alaw.wav").write_bytes(raw)
    with pytest.raises(SSMError, match="not a readable PCM"):
        series.load(tmp_path / "alaw.wav")
    with wave.open(str(tmp_path / "none.wav"), "wb") as file:
        file.setparams((1, 2, 360, 0, "NONE", ""))
    with pytest.raises(SSMError, match="no values"):
        series.load(tmp_path / "none.wav")


@pytest.mark.parametrize("path", [None, 3, ["a.npy"], b"a.npy"])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(SSMError, match=f"load: path is {type(path).__name__} .*; expected the pa"):
        series.load(path)


def test_missing_file_folder_and_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "folder.npy").mkdir()
    for name in ("absent.npy", "folder.npy"):
        with pytest.raises(SSMError, match=rf"{name}: there is no such file"):
            series.load(tmp_path / name)
    with pytest.raises(SSMError, match=r"suffix is '.mat'; expected one of .npy, .csv, .wav"):
        series.load(tmp_path / "a.mat")


# -------------------------------------------------------------------------------- as_channels


def test_channels_are_standardized_and_delayed() -> None:
    length, columns, channels = 200, 3, 8
    values = np.random.default_rng(0).normal(5.0, 3.0, (length, columns))
    u = series.as_channels(values, channels)
    assert u.shape == (length, channels)
    assert u.dtype == np.float64
    for h in range(channels):
        for t in (0, 36, 37, 74, 199):
            assert u[t, h] == u[(t - 37 * (h // columns)) % length, h % columns]
    # x = (v - m) / s with |v| <= V. m errs by at most V eps log2(L) (pairwise sum), as do the
    # differences, so the mean of x by twice that over s, and so its square-mean relative to 1.
    spread = np.abs(values).max() / values.std(axis=0).min()
    tolerance = 8 * EPS * np.log2(length) * spread
    mean, variance = np.abs(u.mean(axis=0)).max(), np.abs((u**2).mean(axis=0) - 1).max()
    print(f"as_channels: mean {mean:.1e}, variance {variance:.1e}, tolerance {tolerance:.1e}")
    assert mean <= tolerance
    assert variance <= tolerance
    correlation = (values[:, 0] - values[:, 0].mean()) / values[:, 0].std() @ u[:, 0] / length
    assert abs(correlation - 1) <= tolerance  # the right column, with the right sign


def test_constant_and_huge_columns() -> None:
    t = np.arange(10.0)
    u = series.as_channels(np.stack([np.full(10, 0.1), 1e300 * (t - 4), 0 * t], axis=1), 3)
    np.testing.assert_array_equal(u[:, [0, 2]], 0.0)
    # Scale invariance: the scaled values differ by one rounding each, eps relative to the peak.
    difference = np.abs(u[:, 1] - series.as_channels((t - 4)[:, None], 1)[:, 0]).max()
    tolerance = 8 * EPS * np.abs(t - 4).max() / t.std()
    print(f"as_channels: scale invariance {difference:.1e}, tolerance {tolerance:.1e}")
    assert difference <= tolerance


def test_channels_refuse() -> None:
    for bad in (np.ones(3), np.ones((0, 1)), np.ones((3, 1), complex), np.array([["a"]])):
        with pytest.raises(SSMError, match="expected real"):
            series.as_channels(bad, 2)
    with pytest.raises(SSMError, match=r"index \(1, 0\)"):
        series.as_channels(np.array([[1.0], [np.nan]]), 2)
    with pytest.raises(SSMError, match=r"series is list \(.*\); expected a NumPy array"):
        series.as_channels([[1.0], [1.0, 2.0]], 2)
    for channels in (0, -1, 2.0, True):
        with pytest.raises(SSMError, match="positive integer"):
            series.as_channels(np.ones((3, 1)), channels)  # type: ignore[arg-type]


def test_channels_leave_their_input_alone() -> None:
    values = np.arange(6.0).reshape(3, 2)
    values.setflags(write=False)
    series.as_channels(values, 4)
    np.testing.assert_array_equal(values, np.arange(6.0).reshape(3, 2))


# ------------------------------------------------------------------------------ the recording


def test_electrocardiogram_is_the_recording() -> None:
    ecg, rate = electrocardiogram()
    assert ecg.dtype == np.float64
    assert ecg.shape == (8192,)
    assert rate == 360.0
    raw = np.rint(200 * ecg).astype("<i2") + 1024
    np.testing.assert_array_equal((raw - 1024) / 200, ecg)
    assert (raw.min(), raw.max()) == (754, 1540)
    digest = hashlib.sha256(raw.astype("<i2").tobytes()).hexdigest()
    assert digest == "065021460c1d2d5f5ced83fd7937f756214acfeb0201d277f15bbd0b80c1040d"


def test_electrocardiogram_is_a_heartbeat() -> None:
    """A rhythm between 40 and 180 beats a minute: the first peak of the autocorrelation."""
    ecg, rate = electrocardiogram()
    centred = ecg - ecg.mean()
    spectrum = np.fft.rfft(centred, 2 * len(ecg))
    autocorrelation = np.fft.irfft(np.abs(spectrum) ** 2)
    lags = slice(int(rate * 60 / 180), int(rate * 60 / 40))
    beat = (lags.start + int(np.argmax(autocorrelation[lags]))) / rate
    print(f"electrocardiogram: {60 / beat:.0f} beats a minute")
    assert lags.start / rate < beat < (lags.stop - 1) / rate
    assert autocorrelation[lags].max() > 0

"""The examples run, and a run that was interrupted ends as if it had not been, bit for bit."""

from __future__ import annotations

import importlib
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssmcore import SSMError, checkpoints, networks

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LIBRARIES = ("torch", "jax")
TINY: dict[str, Any] = {"width": 4, "layers": 1, "batch": 600}  # two steps an epoch
EPS = float(np.finfo("float32").eps)

pytest.importorskip("sklearn", reason="scikit-learn is not installed")


@pytest.fixture(autouse=True)
def _paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


def example(name: str) -> Any:
    return importlib.import_module(name)


def needs(library: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")


class Scripted:
    """A trainer whose parameters count its steps; after ``breaks`` steps Ctrl-C is pressed."""

    def __init__(self, loss: float = 1.0) -> None:
        self.loss, self.steps = loss, 0

    def step(self, u: Any, labels: Any, factor: float, key: tuple[int, int]) -> float:
        self.steps += 1
        return self.loss

    def tree(self) -> dict[str, Any]:
        part = {"x": np.asarray([self.steps])}
        return {"params": part, "mean": part, "square": part}

    def restore(self, tree: dict[str, Any], steps: int) -> None:
        self.steps = int(tree["params"]["x"][0])


def scripted_plan(losses: list[float], patience: int) -> Any:
    answers = iter(losses)
    return example("training").Plan(
        settings={"seed": 0},
        rounds=len(losses),
        steps=3,
        batches=lambda _: [(np.zeros(1), np.zeros(1))] * 3,
        validate=lambda: {"loss": next(answers)},
        patience=patience,
    )


def test_early_stopping_leaves_the_best_and_stays_stopped(tmp_path: Path) -> None:
    fit, losses = example("training").fit, [3.0, 2.0, 2.5, 2.5, 1.0]
    trainer = Scripted()
    history = fit(trainer, scripted_plan(losses, patience=2), tmp_path)
    assert [record["loss"] for record in history] == losses[:4]
    assert trainer.steps == 6  # two rounds of three
    again = Scripted()
    assert fit(again, scripted_plan(losses, patience=2), tmp_path, resume=True) == history
    assert again.steps == 6


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(SSMError, match="loss is nan at step 0; try a smaller --lr"):
        example("training").fit(Scripted(float("nan")), scripted_plan([1.0], 1), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_schedule_rises_and_falls() -> None:
    factors = [example("training").cosine(step, 100) for step in range(100)]
    top = factors.index(max(factors))
    assert top == 5
    assert factors[top] == 1
    assert sorted(factors[: top + 1]) == factors[: top + 1]
    assert sorted(factors[top:], reverse=True) == factors[top:]
    assert 0 < factors[-1] < 1e-2


@pytest.mark.parametrize("model", ["s4", "s4d", "s5", "lru", "s6", "rglru"])
def test_every_model_of_digits_trains(model: str) -> None:
    needs("torch")
    digits = example("digits")
    definition = digits.classifier(model, 8, 1, 0.0)
    trainer = example("training").make_trainer(
        "torch", definition, lr=1e-2, weight_decay=0.0, seed=0
    )
    u, labels = (x[:32] for x in digits.load_digits()["training"])
    losses = [trainer.step(u, labels, 1.0, (0, step)) for step in range(6)]
    assert losses[-1] < losses[0]


def test_the_splits_of_digits_are_all_of_them_once() -> None:
    from sklearn.datasets import load_digits

    data = example("digits").load_digits()
    assert {name: u.shape for name, (u, _) in data.items()} == {
        "training": (1257, 64, 1),
        "validation": (180, 64, 1),
        "test": (360, 64, 1),
    }
    pixels = np.concatenate([(u[..., 0] + 1) * 8 for u, _ in data.values()])
    labels = np.concatenate([labels for _, labels in data.values()])
    theirs = load_digits()
    mine, expected = (
        np.concatenate([x, y[:, None]], axis=1)
        for x, y in ((pixels, labels), (theirs.data, theirs.target))
    )
    assert np.array_equal(mine[np.lexsort(mine.T)], expected[np.lexsort(expected.T)])


@pytest.mark.parametrize("model", ["s5", "lru"])  # with an own learning rate, with a factor of it
def test_a_step_is_that_of_adamw_in_both_libraries(model: str) -> None:
    """From one state, torch's own AdamW, ours in JAX, and the formula in float64."""
    for library in LIBRARIES:
        needs(library)
    digits, make = example("digits"), example("training").make_trainer
    definition = digits.classifier(model, 4, 1, 0.2)
    u, labels = (x[:16] for x in digits.load_digits()["training"])
    lr, decay, factor, options = 1e-2, 0.1, 0.5, {"lr": 1e-2, "weight_decay": 0.1, "seed": 0}
    theirs, ours = (make(library, definition, **options) for library in LIBRARIES)
    theirs.step(u, labels, 1.0, (0, 0))
    before = {name: checkpoints.flatten(x) for name, x in theirs.tree().items()}
    ours.restore(theirs.tree(), 1)
    restored = {name: checkpoints.flatten(x) for name, x in ours.tree().items()}
    assert all(np.array_equal(restored[k][n], x) for k in before for n, x in before[k].items())

    losses = [trainer.step(u, labels, factor, (0, 1)) for trainer in (theirs, ours)]
    # Dropout is the same; what is left is the rounding of sums of some 64 x 16 terms.
    assert abs(losses[0] - losses[1]) <= 64 * 16 * EPS * losses[0]
    for trainer in (theirs, ours):
        after = {name: checkpoints.flatten(x) for name, x in trainer.tree().items()}
        for group in definition.param_groups():
            rate = factor * (group.lr if group.lr is not None else lr * (group.lr_scale or 1.0))
            for name in group.names:
                p = before["params"][name].astype("float64")
                m = after["mean"][name].astype("float64") / (1 - 0.9**2)
                s = after["square"][name].astype("float64") / (1 - 0.999**2)
                step = decay * group.weight_decay * p + m / (np.sqrt(s) + 1e-8)
                # A dozen roundings; 1 - 0.999^2 in float32 has lost nine of its bits.
                slack = rate * np.abs(step) * 2**10 * EPS + 4 * EPS * np.abs(p)
                assert np.all(np.abs(after["params"][name] - (p - rate * step)) <= slack), name


def interrupted(module: Any, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let trainers that ``module`` makes raise KeyboardInterrupt after ``steps``."""
    make = module.make_trainer

    def made(*args: Any, **options: Any) -> Any:
        trainer = make(*args, **options)
        step, left = trainer.step, iter(range(steps))

        def counted(*given: Any) -> float:
            if next(left, None) is None:
                raise KeyboardInterrupt
            loss: float = step(*given)
            return loss

        trainer.step = counted
        return trainer

    monkeypatch.setattr(module, "make_trainer", made)


def contents(folder: Path) -> dict[str, Any]:
    """Return all that a run left but how long it took, arrays as bytes."""
    found: dict[str, Any] = {}
    for name in ("last", "best"):
        config, tree = checkpoints.load(folder / f"{name}.safetensors")
        for record in config["history"]:
            del record["seconds"]
        arrays = {key: x.tobytes() for key, x in checkpoints.flatten(tree).items()}
        found[name] = (config, arrays)
    return found


def check_resume(
    module: Any, options: dict[str, Any], steps: int, tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    """Run ``module`` undisturbed, and with an interruption after ``steps``."""
    module.main(out=tmp_path / "whole", **options)
    with patch.context() as during:
        interrupted(module, during, steps)
        with pytest.raises(KeyboardInterrupt):
            module.main(out=tmp_path / "parts", **options)
    before = contents(tmp_path / "parts")
    module.main(out=tmp_path / "parts", resume=True, **options)
    whole = contents(tmp_path / "whole")
    assert before != whole
    assert contents(tmp_path / "parts") == whole


@pytest.mark.parametrize("library", LIBRARIES)
def test_digits_resumed_are_digits_undisturbed(
    library: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    needs(library)
    options = {"model": "lru", "backend": library, "epochs": 3, **TINY}
    check_resume(example("digits"), options, 3, tmp_path, monkeypatch)  # amid the second epoch
    said = capsys.readouterr().out
    assert "resumed after round 1" in said
    assert said.count("test accuracy") == 2
    assert (tmp_path / "whole" / "curve.png").read_bytes().startswith(b"\x89PNG")


SHORT: dict[str, Any] = {"width": 4, "layers": 1, "heads": 1, "steps": 2, "batch": 2, "length": 16}


@pytest.mark.parametrize(("library", "model"), [("torch", "griffin"), ("jax", "mamba")])
def test_characters_resumed_are_characters_undisturbed(
    library: str,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    needs(library)
    characters = example("characters")
    text = characters.load_text()
    assert len(text) > 300_000
    monkeypatch.setattr(characters, "load_text", lambda: text[:2000])
    monkeypatch.setattr(characters, "CHUNK", 16)
    monkeypatch.setattr(characters, "STREAMS", 2)
    options = {"model": model, "backend": library, "rounds": 2, **SHORT}
    check_resume(characters, options, 3, tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert said.count("5-grams: ") == 2
    assert said.count("sample 2") == 2


def probability(train: str, h: str, c: str, letters: str) -> Fraction:
    """Return Witten and Bell's p(c | h) by its definition, counting anew each time."""
    lower = probability(train, h[1:], c, letters) if h else Fraction(1, len(letters))
    after = [train[i + len(h)] for i in range(len(train) - len(h)) if train[i:].startswith(h)]
    kinds = len(set(after))
    return (after.count(c) + kinds * lower) / (len(after) + kinds) if after else lower


def test_ngrams_are_those_of_witten_and_bell() -> None:
    train, held, letters = "abracadabra abba", "cab drab abra", "abcdr "
    assert sum(probability(train, "ab", c, letters) for c in letters) == 1
    found = example("characters").ngram_bits(train, held, len(letters), 3)
    for n, bits in enumerate(found, 1):
        exact = [
            probability(train, held[max(0, i - n + 1) : i], held[i], letters)
            for i in range(len(held))
        ]
        expected = -np.mean([np.log2(float(p)) for p in exact])
        assert abs(bits - expected) <= 100 * np.finfo("float64").eps * expected


def test_bits_carry_the_state_from_chunk_to_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("torch")
    characters = example("characters")
    monkeypatch.setattr(characters, "CHUNK", 8)
    monkeypatch.setattr(characters, "STREAMS", 2)
    definition = networks.mamba(7, 4, 1)
    trainer = example("training").make_trainer(
        "torch", definition, lr=1e-2, weight_decay=0.0, seed=0
    )
    tokens = np.random.default_rng(0).integers(0, 7, 50)
    params = definition.init(0, backend="numpy", dtype="float64")
    streams = np.stack([tokens[:25], tokens[24:49]])  # 24 characters each, after the first
    logits = definition(params, streams[:, :-1])
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    chosen = np.take_along_axis(p, streams[:, 1:, None], axis=-1)
    expected = -np.log2(chosen).mean()
    # Float32: every logit, of size 1 at most, is off by some hundred roundings of its products.
    assert abs(characters.bits(trainer, tokens) - expected) <= 100 * EPS * expected
    with pytest.raises(SSMError, match="10 characters held out; expected more than 16"):
        characters.bits(trainer, tokens[:10])


def test_samples_follow_the_network() -> None:
    definition, letters = networks.mamba(7, 4, 1), "abcdefg"
    params, sample = definition.init(0, backend="numpy"), example("characters").sample
    options: dict[str, Any] = {"length": 6, "temperature": 0.01, "seed": 0}
    text = sample(definition, params, letters, "bad", **options)
    assert text == sample(definition, params, letters, "bad", **options)
    assert text.startswith("bad")
    assert len(text) == 9
    tokens = [letters.index(c) for c in text]
    logits = definition(params, np.asarray(tokens))[2:-1]
    # At this temperature a choice whose logit is 0.4 behind has a chance of e^-40.
    assert np.all(logits.max(axis=-1) - logits[np.arange(6), tokens[3:]] < 0.4)


def test_bad_input_is_refused_before_any_work(tmp_path: Path) -> None:
    needs("torch")
    digits, characters = example("digits"), example("characters")
    with pytest.raises(SSMError, match=r"--lr is -1.*expected a positive number"):
        digits.main(lr=-1.0, out=tmp_path)
    with pytest.raises(SSMError, match=r"no file .*last\.safetensors"):
        digits.main(resume=True, out=tmp_path / "nothing", **TINY)
    with pytest.raises(SSMError, match=r"--prompt has \['€'\]"):
        characters.main(prompt="5 €", out=tmp_path)
    with pytest.raises(SSMError, match="--prompt is empty"):
        characters.main(prompt="", out=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SSMError, match="cannot be made"):
        digits.main(out=tmp_path / "file", **TINY)
    digits.main(epochs=1, out=tmp_path / "run", **TINY)
    with pytest.raises(SSMError, match=r"holds a run; expected --resume"):
        digits.main(epochs=1, out=tmp_path / "run", **TINY)
    with pytest.raises(SSMError, match=r"other settings \(model: 's5', now 'lru'"):
        digits.main(epochs=1, out=tmp_path / "run", resume=True, **(TINY | {"model": "lru"}))
    with pytest.raises(SSMError, match=r"other settings \(epochs: 1, now 2\)"):
        digits.main(epochs=2, out=tmp_path / "run", resume=True, **TINY)


def test_the_command_says_what_is_wrong_in_a_line() -> None:
    command = [sys.executable, str(EXAMPLES / "digits.py"), "--lr", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: --lr is 0.0; expected a positive number such as 0.004\n"

"""Each layer's quantisation error: small where it should be; the layer that spoils a model is the one named."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edge.errors import ConfigError, SourceError
from edge.vision.preprocess import to_input

keras = pytest.importorskip("keras", reason="the host toolchain: .venv/bin/pip install -e '.[host]'")

from edge_quantize.bundling import convert, float_model, quant_error  # noqa: E402
from edge_quantize.cli import main  # noqa: E402
from edge_quantize.evaluation import chips as chip_sets  # noqa: E402 - after the skip
from edge_quantize.evaluation import score  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge.types import U8


def net(outlier: float = 1.0) -> Any:  # noqa: ANN401
    """Three convolutions; one channel of the second is `outlier` times as large as the others, and unused later."""
    keras.utils.set_random_seed(3)
    inputs = x = keras.Input((48, 48, 1))
    for number, channels in enumerate((8, 12, 8), 1):
        x = keras.layers.Conv2D(channels, 3, 2, "same", name=f"conv{number}")(x)
        x = keras.layers.ReLU(name=f"relu{number}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(x), name="functional")
    if outlier != 1.0:
        kernel, bias = model.get_layer("conv2").get_weights()
        kernel[..., 0] = np.abs(kernel[..., 0]) * outlier
        model.get_layer("conv2").set_weights([kernel, bias])
        kernel, bias = model.get_layer("conv3").get_weights()
        kernel[:, :, 0] = 0
        model.get_layer("conv3").set_weights([kernel, bias])
    return model


@pytest.fixture(scope="module")
def faces() -> U8:
    noise = np.random.default_rng(0).integers(0, 256, (60, 12, 12)).astype(np.uint8)
    return np.kron(noise, np.ones((4, 4), np.uint8))


def quantised(model: Any, faces: U8) -> bytes:  # noqa: ANN401
    return convert.to_tflite(model, convert.representative(faces, np.arange(60) % 3, size=30))


@pytest.fixture(scope="module")
def sound(faces: U8) -> tuple[Any, list[quant_error.LayerError]]:
    model = convert.fixed(net())
    return model, convert.layer_errors(model, quantised(model, faces), faces, size=20)


def test_every_layer_has_a_row_in_order(sound: tuple[Any, list[quant_error.LayerError]]) -> None:
    rows = sound[1]
    assert [row.name for row in rows] == ["relu1", "relu2", "relu3", "pool", "head", "answer"]
    assert [row.op for row in rows] == ["CONV_2D", "CONV_2D", "CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"]
    assert rows[0].shape == (1, 24, 24, 8)
    assert all(row.sqnr_db > 20 for row in rows)
    # Values spread over a grid are off by 1/√12 of a step; zeros of a ReLU by nothing, weights add a little.
    assert 0.1 < rows[0].steps < 0.5
    assert rows[-1].scale == 1 / 256


def test_the_float_side_is_the_keras_model(sound: tuple[Any, list[quant_error.LayerError]], faces: U8) -> None:
    model, rows = sound
    interpreter = score.open_interpreter(convert.to_float_tflite(model), keep=True)
    index = next(d["index"] for d in interpreter.get_tensor_details() if d["name"] == rows[1].tensor)
    inner = model.get_layer("functional")
    inside = keras.Model(inner.input, inner.get_layer("relu2").output)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], to_input(faces[:1]))
    interpreter.invoke()
    np.testing.assert_allclose(interpreter.get_tensor(index), inside(to_input(faces[:1])), rtol=1e-4, atol=1e-5)


def test_reports_as_json_and_markdown(sound: tuple[Any, list[quant_error.LayerError]], tmp_path: Path) -> None:
    rows = sound[1]
    quant_error.write_report(tmp_path / "new" / "r.json", {"gate": rows})
    told = json.loads((tmp_path / "new" / "r.json").read_text(encoding="utf-8"))["gate"]
    assert [row["name"] for row in told] == [row.name for row in rows]
    assert {"sqnr_db", "scale", "zero_point", "added", "steps", "tensor", "shape"} <= told[0].keys()
    quant_error.write_report(tmp_path / "r.md", {"gate": rows})
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert text.count("\n| ") == 1 + len(rows)
    top = quant_error.worst(rows)
    assert top is not None
    assert re.findall(r"\*\*(.+?)\*\*", text) == [top.name]
    with pytest.raises(ConfigError, match=r"\.json or \.md"):
        quant_error.write_report(tmp_path / "r.txt", {})
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match="another place"):
        quant_error.write_report(tmp_path / "file" / "r.md", {})


def saved_model(
    folder: Path, *, batch: int | None = None, classes: int = 3, softmax: bool = False, side: int = 48
) -> Path:
    """Somebody's SavedModel, made without Keras."""
    import tensorflow as tf

    rng = np.random.default_rng(0)

    class Own(tf.Module):  # type: ignore[misc] # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            self.kernel = tf.Variable(rng.normal(0, 0.4, (3, 3, 1, 8)).astype(np.float32))
            self.weights = tf.Variable(rng.normal(0, 0.4, (9 * 8, classes)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([batch, side, side, 1], tf.float32, name="face")])  # type: ignore[untyped-decorator]
        def __call__(self, face: Any) -> Any:  # noqa: ANN401
            x = tf.nn.relu(tf.nn.conv2d(face, self.kernel, 2, "SAME"))
            x = tf.nn.avg_pool2d(x, side // 6, side // 6, "VALID")
            x = tf.reshape(x, [-1, 9 * 8]) @ self.weights
            return tf.nn.softmax(x) if softmax else x

    own = Own()
    tf.saved_model.save(own, str(folder), signatures=own.__call__)
    return folder


@pytest.mark.parametrize(("batch", "softmax"), [(None, False), (1, True)])
def test_a_saved_model_is_quantised_as_it_is(tmp_path: Path, faces: U8, batch: int | None, *, softmax: bool) -> None:
    model = float_model.load_model(saved_model(tmp_path / "own", batch=batch, softmax=softmax))
    assert float_model.ends_in_softmax(model) == softmax
    answers = float_model.predict(model, faces)
    assert answers.shape == (60, 3)
    if not softmax:
        model = float_model.with_temperature(model, 0.8)
        answers = float_model.softmax(answers / 0.8)
    graph = convert.fixed(model)
    flat = quantised(graph, faces)
    given, said = score.quantisation(score.open_interpreter(flat))
    assert (given["shape"], given["scale"], said["scale"]) == ([1, 48, 48, 1], 1 / 128, 1 / 256)
    coarse = score.probabilities(score.outputs(score.open_interpreter(flat), faces))
    assert np.abs(answers - coarse).max() < 0.06
    rows = convert.layer_errors(graph, flat, faces, size=10)
    assert rows[0].op == "CONV_2D"
    assert rows[-1].op == "SOFTMAX"
    assert all(row.sqnr_db > 20 for row in rows)


def test_another_signature_and_other_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"small.*\(None, 24, 24, 1\).*48, 48, 1"):
        float_model.load_model(saved_model(tmp_path / "small", side=24))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="empty: not a SavedModel"):
        float_model.load_model(tmp_path / "empty")
    whole = saved_model(tmp_path / "cut")
    path = whole / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SourceError, match="cut: not a SavedModel"):
        float_model.load_model(whole)


@pytest.fixture
def small_set(monkeypatch: pytest.MonkeyPatch, faces: U8) -> Callable[[Any], None]:
    """Stand-in for FER2013: chips labelled by a model itself, so that float is right on all of them."""

    def put(model: Any) -> None:  # noqa: ANN401
        labels = float_model.predict(model, faces).argmax(axis=1).astype(np.int64)
        some = chip_sets.RoleChips(("a", "b", "c"), faces, labels, faces, labels, faces, labels)
        monkeypatch.setattr(chip_sets, "for_role", lambda _role: some)

    return put


def test_convert_takes_a_saved_model_and_writes_a_report(
    tmp_path: Path, small_set: Callable[[Any], None], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved_model(tmp_path / "own")
    small_set(float_model.load_model(folder))
    command = ["convert", "--model", str(folder), "--role", "gate", "--out", str(tmp_path / "own.tflite")]
    assert main([*command, "--max-loss", "20", "--report", str(tmp_path / "own.md")]) == 0
    assert "| CONV_2D |" in (tmp_path / "own.md").read_text(encoding="utf-8")
    score.open_interpreter(tmp_path / "own.tflite")
    assert main([*command, "--report", str(tmp_path / "own.txt")]) == 2
    capsys.readouterr()


def test_convert_names_the_layer_that_spoils_a_model(
    tmp_path: Path, small_set: Callable[[Any], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A huge channel that nobody reads: the others of its layer drown in its scale."""
    model = net(outlier=400.0)
    model.save(tmp_path / "own.keras")
    small_set(model)
    command = ["convert", "--model", str(tmp_path / "own.keras"), "--role", "gate", "--out", str(tmp_path / "o.tflite")]
    assert main([*command, "--report", str(tmp_path / "why.json")]) == 65
    said = capsys.readouterr().err
    assert re.search(r"points lost, 0\.5 allowed .*; layer relu2 \(CONV_2D, .* adds most: train it", said), said
    assert not (tmp_path / "o.tflite").exists()
    row = next(
        r for r in json.loads((tmp_path / "why.json").read_text(encoding="utf-8"))["gate"] if r["name"] == "relu2"
    )
    assert row["lost"] > 0.5
    assert row["sqnr_db"] > 20, "the figure for the whole layer hides it"

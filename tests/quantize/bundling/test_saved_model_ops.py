"""A SavedModel is read as data before TensorFlow runs anything of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from edge_quantize.bundling.float_model import load_model, predict
from edge_quantize.bundling.saved_model_ops import check_ops

from edge.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def saved(folder: Path, side_effect: Callable[[], object]) -> Path:
    """A SavedModel of the right signature that does something besides."""
    import tensorflow as tf

    class Own(tf.Module):  # type: ignore[misc] # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable(np.zeros((48 * 48, 7), np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None, 48, 48, 1], tf.float32)])  # type: ignore[untyped-decorator]
        def __call__(self, face: Any) -> Any:  # noqa: ANN401
            side_effect()
            return tf.nn.softmax(tf.reshape(face, [-1, 48 * 48]) @ self.weights)

    own = Own()
    tf.saved_model.save(own, str(folder), signatures=own.__call__)
    return folder


def test_arithmetic_is_taken(tmp_path: Path) -> None:
    model = load_model(saved(tmp_path / "own", lambda: None))
    assert np.allclose(predict(model, np.zeros((2, 48, 48), np.uint8)), 1 / 7)


@pytest.mark.parametrize("op", ["WriteFile", "ReadFile", "PrintV2"])
def test_an_op_with_an_effect_is_refused_and_not_run(tmp_path: Path, op: str) -> None:
    import tensorflow as tf

    written = tmp_path / "written"
    effect: Callable[[], object] = {
        "WriteFile": lambda: tf.io.write_file(str(written), "x"),
        "ReadFile": lambda: tf.print(tf.io.read_file("/etc/hostname")),
        "PrintV2": lambda: tf.print("x"),
    }[op]
    folder = saved(tmp_path / "own", effect)
    with pytest.raises(SourceError, match="refused, nothing was run") as caught:
        load_model(folder)
    assert str(caught.value).startswith(f"{folder}: function '__inference")
    assert not written.exists()


def test_the_saver_is_no_hiding_place(tmp_path: Path) -> None:
    """Its functions write files, and are left out only while nothing else can call them."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = saved(tmp_path / "own", lambda: None) / "saved_model.pb"
    check_ops(path.parent)
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    (meta,) = model.meta_graphs
    saver = next(f.signature.name for f in meta.graph_def.library.function if "traced_save" in f.signature.name)
    called = next(f for f in meta.graph_def.library.function if "signature_wrapper" in f.signature.name)
    next(n for n in called.node_def if n.op == "StatefulPartitionedCall").attr["f"].func.name = saver
    path.write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match=r"traced_save.*runs"):
        check_ops(path.parent)


def test_other_forms_of_a_saved_model_are_refused(tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    folder = saved(tmp_path / "own", lambda: None)
    (folder / "saved_model.pbtxt").touch()
    with pytest.raises(SourceError, match=r"saved_model\.pbtxt would be taken"):
        load_model(folder)
    (folder / "saved_model.pbtxt").unlink()
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    model.meta_graphs[0].ClearField("object_graph_def")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match="TensorFlow 1"):
        load_model(folder)


def test_a_keras_file_brings_no_code(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((48, 48, 1)), keras.layers.Lambda(lambda x: x), keras.layers.Flatten()])
    model.save(tmp_path / "own.keras")
    with pytest.raises(SourceError, match="not a Keras model that can be read"):
        load_model(tmp_path / "own.keras")

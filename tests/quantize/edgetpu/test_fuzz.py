"""Model files from strangers: whatever `check` and `inspect` are given, they answer or name the byte that is wrong."""

from __future__ import annotations

import random
import struct
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from edge_quantize.cli import main
from edge_quantize.edgetpu.checker import check
from edge_quantize.edgetpu.executable import EDGETPU_OP, read_compiled
from edge_quantize.edgetpu.flexbuffer import read_bytes
from edge_quantize.edgetpu.graph import read_graph
from edge_quantize.edgetpu.names import NAMES, TYPES
from flatbuffers import Builder

from edge.bundle.flatbuffer import Malformed

NAMES_OF = ("split_concat", "keras_lstm_mnist_ptq")


@pytest.fixture(scope="module")
def files(data: Path) -> list[bytes]:
    """Small real files, each before and after the compiler."""
    folder = data / "edgetpu_pairs"
    return [(folder / f"{name}{end}.tflite").read_bytes() for name in NAMES_OF for end in ("", "_edgetpu")]


def refused(content: bytes) -> Malformed | None:
    """What is said of a file; any other error fails the test."""
    said = None
    try:
        check(read_graph(content))
        read_compiled(content)
    except Malformed as error:
        said = error
    if said is not None:
        assert 0 <= said.offset <= max(len(content), 4)
        assert str(said).startswith(f"byte {said.offset}: ")
    return said


def options_of(content: bytes) -> tuple[int, int]:
    """First byte and length of the options of a compiled file's custom op."""
    op = next(op for op in read_graph(content).ops if op.name == EDGETPU_OP)
    options = op.custom_options.tobytes()
    return content.index(options), len(options)


def test_whole_files_are_read(files: list[bytes]) -> None:
    assert [refused(content) for content in files] == [None] * len(files)


def test_every_truncation_names_a_byte(files: list[bytes]) -> None:
    rng = random.Random(1)  # noqa: S311 - not for secrets
    for content in files:
        for length in [0, 1, 4, 7, 8, 9, 12, len(content) - 64, *rng.choices(range(len(content) - 64), k=150)]:
            assert refused(content[:length]) is not None, length


def test_changed_bits_and_offsets_are_answered_or_refused(files: list[bytes]) -> None:
    rng = random.Random(2)  # noqa: S311 - not for secrets
    told = 0
    for content in files:
        for _ in range(250):
            changed, place = bytearray(content), rng.randrange(min(len(content), 6000))
            if rng.random() < 0.5:
                changed[place] ^= 1 << rng.randrange(8)
            else:
                word = rng.choice([-1, 0, 1, 2**31 - 1, -(2**31), rng.randrange(64), rng.randrange(2**31)])
                struct.pack_into("<i", changed, min(place & ~3, len(content) - 4), word)
            told += refused(bytes(changed)) is not None
    assert told > 120, "the changes must reach what is read"


def test_damage_inside_the_compilers_package_is_found_and_placed(files: list[bytes]) -> None:
    rng, told = random.Random(3), 0  # noqa: S311 - not for secrets
    for content in files[1::2]:
        start, length = options_of(content)
        op = next(op for op in read_graph(content).ops if op.name == EDGETPU_OP)
        # The map's keys and offsets lie at the end, the tables of the package at the beginning.
        for place in [*range(24), *range(length - 48, length), *rng.choices(range(length), k=200)]:
            changed = bytearray(content)
            changed[start + place] ^= 1 << rng.randrange(8)
            error = refused(bytes(changed))
            if error is not None:
                told += 1
                assert error.offset == op.offset
                assert "in the options of the edgetpu-custom-op there, byte " in str(error)
    assert told > 40


def test_a_cut_package_names_both_places(files: list[bytes]) -> None:
    start, length = options_of(files[1])
    changed = bytearray(files[1])
    changed[start + length - 3] = 0  # the root's offset
    with pytest.raises(Malformed, match=r"^byte \d+: in the options of the edgetpu-custom-op there, byte \d+: "):
        read_compiled(bytes(changed))


def test_each_flexbuffer_rule() -> None:
    good = b"4\0" + b"\x03abc\0" + b"\x01\x08" + b"\x01\x01\x01\x09\x64" + b"\x02\x24\x01"
    assert read_bytes(good, "4") == b"abc"
    for harmed, says in (
        (b"", "a flexbuffer of 0 bytes"),
        (good[:-2] + b"\x28\x01", "type 10, not map"),
        (good[:-1] + b"\xff", "an offset points before|an integer of 255 bytes"),
        (good[:-3] + b"\xff\x24\x01", "points before the flexbuffer"),
        (good.replace(b"\x09\x64", b"\xff\x64"), "points before the flexbuffer"),
        (good.replace(b"\x09\x64", b"\x09\x04"), "type 1, not string or blob"),
        (good.replace(b"\x03abc", b"\xf0abc"), "240 bytes run past"),
        (good.replace(b"4\0", b"5\0"), "no key '4'"),
    ):
        with pytest.raises(Malformed, match=says) as caught:
            read_bytes(harmed, "4")
        assert 0 <= caught.value.offset <= len(harmed)


def fan(operators: int, inputs: int, data: int) -> bytes:
    """A file whose operators all share one vector of inputs, which all name one constant."""
    b = Builder(1 << 20)

    def table(*fields: tuple[int, int], number: tuple[int, int] | None = None) -> int:
        b.StartObject(9)
        for slot, offset in fields:
            b.PrependUOffsetTRelativeSlot(slot, offset, 0)
        if number is not None:
            b.PrependUint32Slot(*number, 0)
        return int(b.EndObject())

    def tables(*offsets: int) -> int:
        b.StartVector(4, len(offsets), 4)
        for offset in offsets:
            b.PrependUOffsetTRelative(offset)
        return int(b.EndVector())

    empty, content = table(), b.CreateByteVector(bytes(data))
    buffers = tables(table((0, content)), empty)  # a vector is filled from its end
    b.StartVector(4, inputs, 4)
    for _ in range(inputs):
        b.PrependInt32(0)
    shared = int(b.EndVector())
    tensors, ops = tables(table(number=(2, 1))), tables(*[table((1, shared))] * operators)
    graphs, codes = tables(table((0, tensors), (3, ops))), tables(empty)
    b.Finish(table((1, codes), (2, graphs), (4, buffers), number=(0, 3)), b"TFL3")
    return bytes(b.Output())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (fan(20_000, 100, 16), "operators refer to 2000000 tensors"),
        (fan(10_000, 10, 100_000), "operators take constants of more than"),
    ],
)
def test_a_small_file_cannot_ask_for_endless_work(content: bytes, says: str) -> None:
    assert len(content) < 400_000
    with pytest.raises(Malformed, match=says):
        read_graph(content)
    assert refused(fan(3, 2, 16)) is None, "the same file, only smaller, is read"


@pytest.mark.parametrize("command", ["check", "inspect"])
def test_a_damaged_file_ends_the_command_with_one_line(
    command: str, files: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cut.tflite"
    for content, says in ((files[1][:900], "byte "), (b"", "byte 0: ")):
        file.write_bytes(content)
        assert main([command, str(file)]) == 66
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith(f"edge-quantize: {file}: {says}")
        assert told.err.count("\n") == 1
    for path in ("/dev/zero", str(tmp_path / "none.tflite")):
        assert main([command, path]) == 66
        assert capsys.readouterr().err.count("\n") == 1


def test_operators_and_types_are_named_as_tensorflow_names_them() -> None:
    found = find_spec("tensorflow")
    if found is None or not found.submodule_search_locations:
        pytest.skip("TensorFlow is not installed")
    path = Path(found.submodule_search_locations[0]) / "lite" / "python" / "schema_py_generated.py"
    spec = spec_from_file_location("schema", path)  # by its path: TensorFlow itself takes long to import
    assert spec is not None
    assert spec.loader is not None
    schema = module_from_spec(spec)
    spec.loader.exec_module(schema)
    numbers = {name: number for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    assert all(numbers[name] == number for number, name in enumerate(NAMES) if name in numbers)
    assert numbers.keys() <= set(NAMES)
    types = {name.lower(): number for name, number in vars(schema.TensorType).items() if not name.startswith("_")}
    assert all(types[name] == number for number, name in enumerate(TYPES) if name in types)
    assert types.keys() <= set(TYPES)

"""Files of a landing log into a store, batch by batch, so that it can be ended and tried again at any point."""

from __future__ import annotations

import codecs
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from edge.errors import SourceError
from edge_aggregate.decode import LINE_LIMIT, decode_line
from edge_aggregate.gc_paused import gc_paused
from edge_aggregate.store import Batch, Merged, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

    from edge_aggregate.store import Store

BATCH_LINES: Final = 20_000


class Ingested(NamedTuple):
    """What came of it: files read, files that were in already, and the sums of their batches."""

    files: int
    skipped: int
    lines: int
    merged: Merged


def expand(patterns: Sequence[str]) -> list[Path]:
    """The files of paths and globs, each once, in the order of their names. Raises SourceError where there are none."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        try:
            if path.is_dir():
                msg = f"{pattern}: is a folder: name its files, as in '{pattern.rstrip('/')}/*.jsonl'"
                raise SourceError(msg)
            names = [path] if path.exists() else sorted(_glob(path))
        except (OSError, ValueError) as error:  # a name too long, a folder that may not be looked into, `**x`
            why = getattr(error, "strerror", None) or error
            msg = f"{pattern:.200}: {why}: give paths, or a pattern like 'log/*.jsonl'"
            raise SourceError(msg) from error
        if names == [path]:
            _regular(path)
        if not names:
            msg = f"{pattern}: no such file: give landing logs, one JSON object a line, as in 'log/*.jsonl'"
            raise SourceError(msg)
        found |= dict.fromkeys(name.resolve() for name in names if name.is_file())
    return list(found)


def _regular(path: Path) -> None:
    """Refuse a pipe or a device, which cannot be read again, and a name no store takes. Raises SourceError."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        msg = f"{ascii(str(path))[1:-1]}: its name is no UTF-8: rename it"
        raise SourceError(msg) from error
    if path.exists() and not path.is_file():
        msg = f"{path}: is {'a folder' if path.is_dir() else 'no regular file'}: give a landing log as a file"
        raise SourceError(msg)


def _glob(path: Path) -> Iterator[Path]:
    """What a shell would have made of it, less segments that are still written."""
    root = Path(path.anchor)
    return (name for name in root.glob(str(path.relative_to(root))) if name.suffix != ".tmp")


def ingest_files(
    store: Store,
    files: Sequence[Path],
    *,
    batch_lines: int = BATCH_LINES,
    progress: Callable[[Path, int, Merged], None] = lambda *_: None,
) -> Ingested:
    """Read each file to its end, from where it was left before.

    Args:
        store: where to.
        files: landing logs; one that was in already, under this name or another, is skipped.
        batch_lines: lines of a transaction.
        progress: called after each batch with the file, its lines so far and what the batch was.

    Raises:
        SourceError: a file cannot be read, or was changed before the place up to which it was read.
        StorageError: the store cannot take a batch; all batches before it are kept.

    """
    total, lines, skipped = Merged(), 0, 0
    for path in files:
        try:
            _regular(path)  # before it is opened: opening a pipe waits
            with path.open("rb") as file:
                start = _start(store, path, file)
                if start is None:
                    skipped += 1
                    continue
                batches = batches_of(str(path), file, start, batch_lines)
                while (batch := _next(batches)) is not None:
                    merged = store.merge([batch])
                    total = total.plus(merged)
                    progress(path, batch.progress.lines, merged)
                    lines += batch.progress.lines - start.lines
                    start = batch.progress
        except OSError as error:
            msg = f"{path}: {error.strerror}: give a landing log, one JSON object a line"
            raise SourceError(msg) from error
    return Ingested(len(files) - skipped, skipped, lines, total)


@gc_paused()
def _next(batches: Iterator[Batch]) -> Batch | None:
    return next(batches, None)


def _start(store: Store, path: Path, file: BinaryIO) -> Progress | None:
    """How far the file is in; None when that is all of it."""
    size = path.stat().st_size
    done = store.progress(str(path))
    start = begin(str(path), file, size, done)
    if done is None and size and store.same(size, _digest(file, size)[0].hexdigest()):
        return None
    return start


def begin(name: str, file: BinaryIO, size: int, done: Progress | None) -> Progress | None:
    """Where to read on in a segment that is in as far as `done`; None when that is all of it.

    Raises SourceError when it was changed before that place, or is no UTF-8.
    """
    head = file.read(3)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        msg = f"{name}: is UTF-16: save it as UTF-8"
        raise SourceError(msg)
    if done is None:
        return Progress(name, 0, 0, "")
    digest, left = _digest(file, done.bytes)
    if left or digest.hexdigest() != done.sha256:
        msg = (
            f"{name}: was changed before byte {done.bytes}, up to which it is in the store: "
            f"give the lines that are new as a file of their own, or ingest the log into a new store"
        )
        raise SourceError(msg)
    return done if size > done.bytes else None


def _digest(file: BinaryIO, size: int) -> tuple[hashlib._Hash, int]:
    """The digest of a file's first bytes, after which it is left, and how many of them are not there."""
    digest = hashlib.sha256()
    file.seek(0)
    while size and (part := file.read(min(size, 1 << 20))):
        digest.update(part)
        size -= len(part)
    return digest, size


def batches_of(name: str, file: BinaryIO, start: Progress, batch_lines: int = BATCH_LINES) -> Iterator[Batch]:
    """The rest of a segment, decoded. A last line without an end is taken: landing logs are never appended to."""
    digest, _ = _digest(file, start.bytes)
    number, place = start.lines, start.bytes
    batch = Batch(start)
    for line, size in _lines(file, digest):
        number, place = number + 1, place + size
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        batch.add(number, decode_line(text))
        if number - start.lines >= batch_lines:
            start = batch.progress = Progress(name, number, place, digest.copy().hexdigest())
            yield batch
            batch = Batch(start)
    if number > start.lines:
        batch.progress = Progress(name, number, place, digest.hexdigest())
        yield batch


def _lines(file: BinaryIO, digest: hashlib._Hash) -> Iterator[tuple[bytes, int]]:
    """Each line, as far as it is read, and its whole size: no line fills the memory."""
    while line := file.readline(LINE_LIMIT + 1):
        digest.update(line)
        size, part = len(line), line
        while len(part) > LINE_LIMIT and not part.endswith(b"\n"):
            part = file.readline(LINE_LIMIT + 1)
            digest.update(part)
            size += len(part)
        yield line, size

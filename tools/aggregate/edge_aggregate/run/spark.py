"""A landing log into a store by a Spark cluster: executors decode, the driver merges.

Structured Streaming finds the segments, each of which one executor reads whole; the driver commits the batches of a
micro-batch in one transaction. There is no operator with a state, so nothing that comes late is dropped. What is in
already, the store says (`segments`): a micro-batch that is tried again, a checkpoint that is lost, a run beside the
embedded one do no harm.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import tempfile
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from edge.errors import ConfigError, EdgeError, SourceError
from edge_aggregate.ingest import BATCH_LINES, Ingested, batches_of, begin
from edge_aggregate.store import Merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming import StreamingQuery

    from edge_aggregate.store import Batch, Progress, Store

MASTER: Final = "local[*]"
SEGMENT_LIMIT: Final = 256 << 20
"""Bytes of a segment, which one executor holds in memory; the subscriber's have some megabytes."""

DECODING: Final = "decode"
"""The group of the jobs that decode, in Spark's own pages."""

MICRO_BATCH: Final = 64 << 20
"""Bytes of segments that are decoded and committed together: what the driver holds, five times smaller."""

_JAVA: Final = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Java only carries bytes here: its second compiler, and threads to collect garbage, take longer than they save."""

_SETTINGS: Final = {
    "spark.driver.extraJavaOptions": _JAVA,
    "spark.executor.extraJavaOptions": _JAVA,
    "spark.sql.codegen.wholeStage": "false",  # nor is a query of two columns worth a compiler
    "spark.ui.enabled": "false",
    "spark.log.level": "OFF",  # what fails is told once, in a line
    "spark.driver.memory": "512m",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "100000",  # a job to list what the stream has listed
    "spark.sql.files.maxPartitionBytes": "8m",  # of small segments together: a task's share
    "spark.sql.files.openCostInBytes": "64k",
}
"""Unless `spark-submit` or spark-defaults.conf says otherwise."""


class Part(NamedTuple):
    """What an executor made of a part of a segment: a pickled `Batch`, or why there is none.

    `whole` is the (size, sha256) of the segment, in its last part; `lines` are those of this part.
    """

    name: str
    number: int
    batch: bytes
    lines: int = 0
    whole: tuple[int, str] | None = None
    error: str | None = None


def run_spark(
    store: Store,
    patterns: Sequence[str],
    *,
    master: str | None = None,
    follow: bool = False,
    checkpoint: Path | None = None,
    progress: Callable[[Path, int, Merged], None] = lambda *_: None,
) -> Ingested:
    """Read every segment of a landing log that is not in yet.

    Args:
        store: where to, merged into by this process.
        patterns: paths and globs of local files, or of any file system that the cluster reads (`hdfs://…`).
        master: Spark's (default: what `spark-submit` says, else all cores of this machine).
        follow: go on with segments that come, until interrupted.
        checkpoint: Spark's own notes, which a run that follows reads fewer folders by; for one store only. Default: a
            temporary folder.
        progress: called after each commit with its last segment, the lines so far and what was merged.

    Raises:
        SourceError: a segment cannot be read, is larger than `SEGMENT_LIMIT`, or was changed after it was read.
        StorageError: the store cannot take a micro-batch; those before it are kept.
        ConfigError: the checkpoint is another store's, or Spark does not start.

    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    with ExitStack() as stack:
        if checkpoint is None:
            checkpoint = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-spark-")))
        _claim_checkpoint(checkpoint, store)
        spark = _session(master)
        stack.callback(spark.stop)
        merging = _Merging(store, progress)
        handed: SimpleQueue[tuple[DataFrame, Future[None]]] = SimpleQueue()

        def hand_over(segments: DataFrame, _: int) -> None:
            """Called by Spark in a thread of its own: a store is not for two."""
            done: Future[None] = Future()
            handed.put((segments, done))
            done.result()

        segments = (
            spark.readStream.format("binaryFile")
            .schema("path STRING, modificationTime TIMESTAMP, length LONG, content BINARY")
            .option("maxBytesPerTrigger", MICRO_BATCH)
            .load(_glob(patterns))
        )
        writer = segments.writeStream.foreachBatch(hand_over).option("checkpointLocation", str(checkpoint / "spark"))
        writer = writer.trigger(processingTime="1 second") if follow else writer.trigger(availableNow=True)
        try:
            query = writer.start()
            with suppress(KeyboardInterrupt):
                _take(query, handed, merging)
            query.awaitTermination()
        except (PySparkException, Py4JError) as error:
            raise _of_spark(error) from None
    return Ingested(len(merging.names), merging.skipped, merging.lines, merging.merged)


def _take(query: StreamingQuery, handed: SimpleQueue[tuple[DataFrame, Future[None]]], merging: _Merging) -> None:
    """Merge each micro-batch as it is handed over, until there are no more, or one fails."""
    while True:
        try:
            segments, done = handed.get(timeout=0.2)
        except Empty:
            if not query.isActive:
                return
            continue
        except KeyboardInterrupt:
            query.stop()
            raise
        try:
            merging.micro_batch(segments)
        except BaseException as error:
            done.set_exception(RuntimeError(str(error)))
            with suppress(Exception):  # it has failed, and says so at length
                query.stop()
            raise
        done.set_result(None)


class _Merging:
    """What the driver does with each micro-batch."""

    def __init__(self, store: Store, progress: Callable[[Path, int, Merged], None]) -> None:
        self._store, self._progress = store, progress
        self.names: set[str] = set()
        self.skipped = self.lines = 0
        self.merged = Merged()

    def micro_batch(self, segments: DataFrame) -> None:
        """Again, perhaps, if Spark is not sure that it was: then nothing is new in it."""
        known: dict[str, Progress | None] = {}
        left = 0
        for path, size in segments.select("path", "length").collect():
            name = _name(path)
            if size > SEGMENT_LIMIT:
                msg = f"{name}: has {size >> 20} MiB, an executor reads {SEGMENT_LIMIT >> 20}: ingest it without Spark"
                raise SourceError(msg)
            known[name] = done = self._store.progress(name)
            left += name.endswith(".tmp") is False and (done is None or done.bytes != size)
        if not left:
            self.skipped += len(known)
            return
        rows = segments.select("path", "content").rdd  # not mapInArrow, which asks for pandas
        rows.context.setJobGroup(DECODING, f"{left} segments")
        parts: list[Part] = sorted(rows.mapPartitions(_Decoding(known)).collect(), key=lambda part: part[:2])
        for part in parts:
            if part.error is not None:
                raise SourceError(part.error)
        wanted = self._new(parts)
        self.skipped += len(known) - len(wanted)
        self.names |= wanted
        merged = self._store.merge(self._counted(part for part in parts if part.name in wanted))
        self.merged = self.merged.plus(merged)
        if wanted:
            self._progress(Path(max(wanted)), self.lines, merged)

    def _new(self, parts: Iterable[Part]) -> set[str]:
        """Segments of which nothing is in under another name, nor under two names in this micro-batch."""
        seen: set[tuple[int, str]] = set()
        wanted = set()
        for part in parts:
            if part.whole is None or part.whole in seen:
                continue
            if self._store.same(*part.whole) in (None, part.name):
                seen.add(part.whole)
                wanted.add(part.name)
        return wanted

    def _counted(self, parts: Iterable[Part]) -> Iterator[Batch]:
        for part in parts:
            self.lines += part.lines
            batch: Batch = pickle.loads(part.batch)  # noqa: S301 - our own executor's
            yield batch


class _Decoding:
    """What an executor does with its segments; `known` says how far each is in."""

    def __init__(self, known: Mapping[str, Progress | None]) -> None:
        self._known = known

    def __call__(self, segments: Iterable[Any]) -> Iterator[Part]:
        for path, content in segments:
            name = _name(path)
            if not name.endswith(".tmp"):  # still written
                yield from self._segment(name, bytes(content))

    def _segment(self, name: str, content: bytes) -> Iterator[Part]:
        file = io.BytesIO(content)
        try:
            start = begin(name, file, len(content), self._known.get(name))
        except EdgeError as error:
            yield Part(name, 0, b"", error=str(error))
            return
        if start is None:
            return
        for number, batch in enumerate(batches_of(name, file, start, BATCH_LINES)):
            size, digest = batch.progress.bytes, batch.progress.sha256
            whole = (size, digest) if size == len(content) else None
            lines = batch.progress.lines - start.lines
            start = batch.progress
            yield Part(name, number, pickle.dumps(batch, protocol=5), lines, whole)


def _session(master: str | None) -> SparkSession:
    from py4j.protocol import Py4JError
    from pyspark import SparkConf
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    conf = SparkConf().setAppName("edge-aggregate")
    conf.setIfMissing("spark.master", MASTER)
    if master is not None:
        conf.setMaster(master)
    if conf.get("spark.master", MASTER).startswith("local"):  # executors of this machine find what we find
        conf.setExecutorEnv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    for name, value in _SETTINGS.items():
        conf.setIfMissing(name, value)
    try:
        return SparkSession.builder.config(conf=conf).getOrCreate()
    except (PySparkException, Py4JError) as error:
        raise _of_spark(error) from None


def _glob(patterns: Sequence[str]) -> str:
    """All patterns as one of Hadoop's, in braces also where there is one: a plain name would have to be a folder's.

    Raises ConfigError.
    """
    found: dict[str, list[str]] = {}
    for pattern in patterns:
        if "**" in pattern or "," in pattern or "{" in pattern:
            msg = f"{pattern}: Spark's patterns have *, ? and [ ], and no ** nor commas: name each folder"
            raise ConfigError(msg)
        scheme, _, path = pattern.rpartition("://")
        host, _, path = path.partition("/") if scheme else str(Path(pattern).absolute()).partition("/")
        found.setdefault(f"{scheme}://{host}/" if scheme else "/", []).append(path)
    if len(found) > 1:
        msg = f"{', '.join(found)}: Spark reads one file system at a time: start it once for each"
        raise ConfigError(msg)
    ((root, paths),) = found.items()
    return f"{root}{{{','.join(paths)}}}"  # what is not below a root in front of the braces is of the current folder


def _name(path: str) -> str:
    """A segment's name: that of the embedded runner for a local file, else the address."""
    parts = urlsplit(path)
    return str(Path(unquote(parts.path)).resolve()) if parts.scheme in ("", "file") else path


def _claim_checkpoint(folder: Path, store: Store) -> None:
    """One checkpoint, one store: Spark would leave out what it has shown to another."""
    mark = folder / "store"
    held = bool(store.engine.fetch("SELECT 1 FROM segments LIMIT 1"))
    try:
        if mark.exists() and (mark.read_text() != store.engine.name or not held):
            msg = f"{folder}: is the checkpoint of {mark.read_text()} as it was: name another folder, or remove it"
            raise ConfigError(msg)
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(store.engine.name)
    except OSError as error:
        msg = f"{folder}: {error.strerror}: name a folder for Spark's checkpoint"
        raise ConfigError(msg) from error


def _of_spark(error: Exception) -> EdgeError:
    """The first line of what Spark says, which has a page."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if "JAVA" in text.upper():
        text = f"{text}; Spark needs Java 17 or newer: apt-get install openjdk-17-jre-headless"
    return ConfigError(f"Spark: {text[:300]}")

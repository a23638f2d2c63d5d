"""What a Spark cluster makes of a log is what one machine makes of it, bit by bit, also when an executor is killed."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from edge_aggregate.ingest import ingest_files
from edge_aggregate.store import open_store

from edge.errors import ConfigError
from tests.support.fleet_log import write_fleet_log
from tests.support.windows import dump

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.aggregate,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets that py4j leaves to the interpreter
]

WINDOWS = int(os.environ.get("EDGE_SPARK_WINDOWS", "120000"))
MEMORY_MIB = 2500


@pytest.fixture(autouse=True)
def java() -> None:
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        reason = "no Java; install one with: apt-get install openjdk-17-jre-headless"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def descendants(root: int) -> Iterator[int]:
    """A process and all below it."""
    yield root
    try:
        tasks = [*Path(f"/proc/{root}/task").iterdir()]
        below = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has ended
        return
    for child in below:
        yield from descendants(int(child))


def read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


class Watch(threading.Thread):
    """Kills one executor while it decodes, and notes how much memory all processes take together."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.killed, self.failed_tasks, self.peak_mib = 0, 0, 0.0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.2):
            pids = [*descendants(os.getpid())]
            sizes = [read(f"/proc/{pid}/smaps_rollup").partition("Pss:")[2].split() for pid in pids]
            self.peak_mib = max(self.peak_mib, sum(int(size[0]) for size in sizes if size) / 1024)
            active = self.stages()
            self.failed_tasks = max([self.failed_tasks, *(stage.numFailedTasks for stage in active)])
            if not self.killed and any(stage.numCompletedTasks and stage.numActiveTasks > 1 for stage in active):
                executors = [pid for pid in pids if "CoarseGrainedExecutorBackend" in read(f"/proc/{pid}/cmdline")]
                if executors:
                    os.kill(executors[0], signal.SIGKILL)
                    self.killed = executors[0]

    @staticmethod
    def stages() -> list[Any]:
        """Those in which executors decode."""
        from edge_aggregate.run.spark import DECODING
        from pyspark import SparkContext

        found: list[Any] = []
        with suppress(AttributeError):  # of a context that begins or ends just now
            tracker = SparkContext._active_spark_context.statusTracker()
            jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(DECODING)]
            found = [tracker.getStageInfo(stage) for job in jobs if job for stage in job.stageIds]
        return [stage for stage in found if stage is not None]


def test_a_cluster_that_loses_an_executor_makes_the_same_bits(tmp_path: Path) -> None:
    from edge_aggregate.run.spark import run_spark

    log = tmp_path / "log"
    log.mkdir()
    windows = write_fleet_log(log, devices=max(1, WINDOWS // 300), hours=304, lines_a_segment=max(50, WINDOWS // 100))
    alone = tmp_path / "alone.jsonl"  # a name that is no pattern, beside a pattern
    min(log.iterdir()).rename(alone)
    with open_store(str(tmp_path / "one.db"), create=True) as store:
        one = ingest_files(store, [alone, *sorted(log.iterdir())])
        expected = dump(store)
    watch = Watch()
    watch.start()
    begun = time.monotonic()
    with open_store(str(tmp_path / "spark.db"), create=True) as store:
        done = run_spark(store, [f"{log}/*.jsonl", str(alone)], master="local-cluster[2,1,1024]")
        seconds = time.monotonic() - begun
        watch.ended.set()
        watch.join()
        assert dump(store) == expected
    print(f"{windows} windows in {seconds:.0f} s, {watch.peak_mib:.0f} MiB in all processes")
    assert one.merged == done.merged
    assert (one.files, one.lines) == (done.files, done.lines)
    assert one.merged.windows >= WINDOWS
    assert min(one.merged.duplicates / windows / 0.03, one.merged.conflicts, one.merged.dead) > 0.9
    assert watch.killed, "no executor was caught at work"
    assert watch.failed_tasks, "the one that was killed did nothing"
    assert watch.peak_mib <= MEMORY_MIB


def test_patterns_are_of_one_file_system(tmp_path: Path) -> None:
    from edge_aggregate.run.spark import run_spark

    with open_store(str(tmp_path / "store.db"), create=True) as store:
        for patterns, why in (
            ([f"{tmp_path}/*.jsonl", "hdfs://names:9000/log/*.jsonl"], "one file system at a time"),
            ([f"{tmp_path}/**/*.jsonl"], "name each folder"),
        ):
            with pytest.raises(ConfigError, match=why):
                run_spark(store, patterns)

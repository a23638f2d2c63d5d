"""Every way an Edge TPU is known to fail: no answer is lost, what happened is said, and the TPU comes back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge.bundle.golden import golden_answers
from edge.bundle.manifest import load_bundle
from edge.inference.worker_process import WorkerProcess
from tests.support.edgetpu import LONG, QUICK, check, until
from tests.support.processes import alive

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.inference.edgetpu import EdgeTpuBackend
    from edge.types import U8
    from tests.support.edgetpu import Answers, StandIn


def test_a_worker_computes_what_the_cpu_does(
    tpus: StandIn, opened: Callable[..., EdgeTpuBackend], compiled_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tpus.plug()
    bundle = load_bundle(compiled_bundle)
    backend = opened(roles=bundle.roles)
    assert backend.name == "edgetpu"
    assert 'backend chosen=edgetpu reason="golden answers are right"' in caplog.text
    before = len(tpus.seen("invoke"))
    for role, (chips, wanted) in golden_answers(bundle, bundle.roles).items():
        assert np.abs(backend.outputs(role, chips).astype(int) - wanted).max() <= 1
        assert backend.probabilities(role, chips).sum(axis=1) == pytest.approx(1, abs=0.03)
        assert backend.outputs(role, chips[:0]).shape == (0, wanted.shape[1])
        before += 2 * len(chips)
    assert len(tpus.seen("invoke")) == before
    assert len(tpus.seen("create")) == len(bundle.roles)
    (worker,) = {pid for pid, _ in tpus.seen("invoke")}
    assert worker != os.getpid()
    assert backend.restarts == 0


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ("hang", "hung"),
        ("abort", "died .*SIGABRT"),
        ("segv", "died .*SIGSEGV"),
        ("error", "erred .*told to fail"),
    ],
)
def test_a_tpu_that_fails_loses_nothing_and_comes_back(
    word: str,
    cause: str,
    *,
    tpus: StandIn,
    opened: Callable[..., EdgeTpuBackend],
    chips: U8,
    right: Answers,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tpus.plug()
    backend = opened(QUICK._replace(invoke_s=1.0) if word == "hang" else QUICK)
    tpus.tell(word)
    for _ in range(3):
        check(backend, chips, right)
        backend.attend()
    assert backend.name == "cpu:fallback"
    assert re.search(f"cause={cause}", caplog.text)
    assert "backend now=cpu:fallback before=edgetpu" in caplog.text
    tpus.tell("ok")
    backend._patience = QUICK
    until(backend, "edgetpu")
    assert "backend now=edgetpu before=cpu:fallback" in caplog.text
    assert backend.restarts > 0
    before = len(tpus.seen("invoke"))
    check(backend, chips, right)
    assert len(tpus.seen("invoke")) == before + len(chips)


def test_a_tpu_that_turns_wrong_is_found_out_by_the_golden_input_that_rides_along(
    tpus: StandIn, opened: Callable[..., EdgeTpuBackend], chips: U8, right: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    tpus.plug()
    backend = opened(QUICK._replace(check_s=0))
    tpus.tell("wrong")
    check(backend, chips, right)
    assert backend.name == "cpu:fallback"
    assert re.search("cause=wrong .*gate_int8.tflite: computes wrongly on edgetpu", caplog.text)
    tpus.tell("ok")
    until(backend, "edgetpu")
    check(backend, chips, right)


def test_between_two_golden_inputs_a_wrong_tpu_is_believed(
    tpus: StandIn, opened: Callable[..., EdgeTpuBackend], chips: U8, right: Answers
) -> None:
    """What the test before would see if nothing rode along."""
    tpus.plug()
    backend = opened()
    tpus.tell("wrong")
    assert np.abs(backend.outputs("gate", chips).astype(int) - right).max() > 100


def test_a_slow_tpu_is_waited_for(
    tpus: StandIn, opened: Callable[..., EdgeTpuBackend], chips: U8, right: Answers
) -> None:
    tpus.plug()
    backend = opened()
    tpus.tell("slow")
    began = time.monotonic()
    check(backend, chips[:8], right[:8])
    assert time.monotonic() - began >= 8 * 0.05
    assert backend.name == "edgetpu"


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("refuse", "libedgetpu.so.1 opens no device usb:0 .*told to refuse.*check cable"),
        ("hang-create", "no answer within 2 s"),
        ("abort", "SIGABRT"),
        ("error", "told to fail"),
        ("wrong", "computes wrongly on edgetpu"),
    ],
)
def test_a_tpu_that_fails_at_the_start_is_not_used_until_it_works(
    word: str,
    says: str,
    *,
    tpus: StandIn,
    opened: Callable[..., EdgeTpuBackend],
    chips: U8,
    right: Answers,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tpus.plug()
    tpus.tell(word)
    backend = opened(QUICK._replace(start_s=2) if word == "hang-create" else QUICK)
    assert backend.name == "cpu:fallback"
    assert re.search(f"chosen=cpu:fallback reason=.*{says}", caplog.text)
    check(backend, chips, right)
    tpus.tell("ok")
    backend._patience = QUICK
    until(backend, "edgetpu")
    check(backend, chips, right)


def test_the_pauses_grow_until_the_device_is_left_alone(
    tpus: StandIn, opened: Callable[..., EdgeTpuBackend], caplog: pytest.LogCaptureFixture
) -> None:
    tpus.plug()
    tpus.tell("refuse")
    backend = opened(QUICK._replace(retry_s=0.25, return_s=0.125))
    end = time.monotonic() + LONG
    while backend.restarts < 4:
        assert time.monotonic() < end
        backend.attend()
        time.sleep(0.01)
    pauses = [float(p) for p in re.findall(r"retry_s=(\S+)", caplog.text)]
    assert pauses[:4] == [0.25, 0.5, 0.125, 0.125]


def test_no_worker_is_started_while_the_driver_holds_a_killed_one(
    tpus: StandIn,
    opened: Callable[..., EdgeTpuBackend],
    chips: U8,
    right: Answers,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What an uninterruptible sleep does: SIGKILL was sent, and the process stays. Here it is only said to stay."""
    tpus.plug()
    backend = opened(QUICK._replace(hold_s=0))
    (seat,) = backend._seats.values()
    gone = WorkerProcess.gone
    monkeypatch.setattr(WorkerProcess, "gone", lambda *_: False)
    tpus.tell("abort")
    end = time.monotonic() + LONG
    while seat.failures < 9:
        assert time.monotonic() < end
        check(backend, chips, right)
        backend.attend()
        time.sleep(0.01)
    assert backend.name == "cpu:fallback"
    assert backend.restarts == 0
    assert len(backend._dying) == 1
    assert caplog.text.count("cause=held") == 1
    assert "its driver holds it" in backend.trouble
    monkeypatch.setattr(WorkerProcess, "gone", gone)
    tpus.tell("ok")
    until(backend, "edgetpu")
    check(backend, chips, right)


# ---- several, plugged in and out


def test_several_tpus_share_and_one_takes_over(
    tpus: StandIn, opened: Callable[..., EdgeTpuBackend], chips: U8, right: Answers
) -> None:
    tpus.plug("2-1")
    tpus.plug("2-2", "18d1:9302")
    backend = opened()
    assert backend.name == "edgetpu:2/2"
    before = len(tpus.seen("invoke"))
    check(backend, chips, right)
    work = tpus.seen("invoke")[before:]
    assert {device for _, device in work} == {"usb:0", "usb:1"}
    assert [sum(p == pid for p, _ in work) for pid in {p for p, _ in work}] == [len(chips) // 2] * 2
    tpus.tell("refuse:usb:1")
    (victim,) = {pid for pid, device in work if device == "usb:1"}
    os.kill(victim, signal.SIGKILL)
    check(backend, chips, right)
    until(backend, "edgetpu:1/2")
    check(backend, chips, right)
    tpus.tell("ok")
    until(backend, "edgetpu:2/2")


def test_one_face_at_a_time_goes_to_each_in_turn(
    tpus: StandIn, opened: Callable[..., EdgeTpuBackend], chips: U8
) -> None:
    tpus.plug("2-1")
    tpus.plug("2-2")
    backend = opened()
    before = len(tpus.seen("invoke"))
    for chip in chips[:6]:
        backend.outputs("gate", chip[None])
    assert sorted(device for _, device in tpus.seen("invoke")[before:]) == ["usb:0"] * 3 + ["usb:1"] * 3


def test_a_tpu_may_come_and_go(
    tpus: StandIn, opened: Callable[..., EdgeTpuBackend], chips: U8, right: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    backend = opened()
    assert backend.name == "cpu"
    assert 'chosen=cpu reason="no Edge TPU on USB or PCIe"' in caplog.text
    check(backend, chips, right)
    place = tpus.plug()
    until(backend, "edgetpu")
    check(backend, chips, right)
    place.rename(tpus.sysfs / "unplugged")
    os.kill(tpus.seen("invoke")[-1][0], signal.SIGKILL)
    check(backend, chips, right)
    until(backend, "cpu:fallback")
    end = time.monotonic() + LONG
    while "edgetpu_gone" not in caplog.text:
        assert time.monotonic() < end
        backend.attend()
    (tpus.sysfs / "unplugged").rename(place)
    until(backend, "edgetpu")


# ---- the process itself

RUN = """
import sys, time
from pathlib import Path
from edge.inference import coral
from edge.inference.choose import open_backend
from edge.bundle.golden import golden_answers, judge_answers
from edge.bundle.manifest import load_bundle
coral.SYSFS = Path(sys.argv[1])
bundle = load_bundle(Path(sys.argv[2]))
backend = open_backend(bundle, ("gate",), "auto", judge_answers)
print("ready", flush=True)
sys.stdin.readline()
backend.outputs("gate", golden_answers(bundle, ("gate",))["gate"][0])
"""


def test_a_worker_dies_with_its_service_even_while_it_hangs(tpus: StandIn, compiled_bundle: Path) -> None:
    tpus.plug()
    command = [sys.executable, "-c", RUN, str(tpus.sysfs), str(compiled_bundle)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as service:
        assert service.stdin is not None
        assert service.stdout is not None
        assert service.stdout.readline() == b"ready\n"
        before = len(tpus.seen("invoke"))
        tpus.tell("hang")
        service.stdin.write(b"\n")
        service.stdin.flush()
        end = time.monotonic() + LONG
        while len(tpus.seen("invoke")) == before:
            assert time.monotonic() < end
        worker = tpus.seen("invoke")[-1][0]
        service.kill()
    while alive(worker):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_worker_outlives_the_signals_of_its_group_and_leaves_no_dump(
    tpus: StandIn, opened: Callable[..., EdgeTpuBackend], chips: U8, right: Answers
) -> None:
    tpus.plug()
    backend = opened()
    worker = tpus.seen("invoke")[-1][0]
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker, number)
    check(backend, chips, right)
    assert backend.name == "edgetpu"
    assert re.search(r"Max core file size +0 +0 ", Path(f"/proc/{worker}/limits").read_text())
    backend.close()
    assert not alive(worker)


def test_the_worker_imports_little() -> None:
    code = "import sys, edge.inference.worker; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"cv2", "pydantic", "asyncio", "sqlite3", "paho"} & set(done.stdout.split())

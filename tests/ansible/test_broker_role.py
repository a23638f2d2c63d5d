"""The broker as the role configures it, for real: who may be whom, who is revoked, and how much anybody may send."""

from __future__ import annotations

import json
import shutil
import signal
import ssl
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import jinja2
import paho.mqtt.client as mqtt
import pytest
import yaml
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.commands.demo.subscriber import Broker
from edge.errors import BrokerRefused
from edge.publisher.mqtt_client import TooLarge
from edge.publisher.session import open_session
from tests.conftest import ROOT
from tests.support.appliance import TlsFiles
from tests.support.broker import Mosquitto, needs_mosquitto

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge.publisher.session import Session

ROLE = ROOT / "ansible/roles/broker"
KIOSKS = {name: {"edge_site": "lobby"} for name in ("kiosk-07", "kiosk-07-b", "kiosk-08")}

pytestmark = [
    needs_mosquitto,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc on PATH; install it with: apt-get install gcc"),
]


class RoleBroker:
    """A Mosquitto with the role's plugin, templates and a lab's certificates, all in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pki = folder, folder / "pki"
        lab("ca", self.pki, "broker.example", "127.0.0.1")
        for name in (*KIOSKS, "aggregator", "operator"):
            lab("ca", self.pki, name)
        plugin = folder / "edge_client_id.so"
        source = ROLE / "files/edge_client_id.c"
        flags = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")
        subprocess.run(["gcc", *flags, "-o", str(plugin), str(source)], check=True)
        defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
        variables = defaults | {"edge_readers": ["aggregator"], "ansible_managed": "by a test"}
        variables |= {
            "broker_plugin_source": {"checksum": "0123"},
            "groups": {"kiosks": list(KIOSKS)},
            "hostvars": KIOSKS,
        }
        (folder / "edge.acl").write_text(self._rendered("acl.j2", variables))
        lines = self._rendered("mosquitto.conf.j2", variables)
        places = {
            "/usr/local/lib/edge/edge_client_id-0123.so": plugin,
            "/etc/mosquitto/edge.acl": folder / "edge.acl",
            "/etc/mosquitto/certs/server": self.pki / "broker.example",
            "/etc/mosquitto/certs": self.pki,
        }
        for theirs, ours in places.items():
            assert theirs in lines
            lines = lines.replace(theirs, str(ours))
        self.there = Mosquitto(folder)
        config = folder / f"mosquitto-{self.there.port}.conf"
        lines = lines.replace("listener 8883", f"listener {self.there.port} 127.0.0.1")
        config.write_text(f"user root\nlog_type all\npersistence true\npersistence_location {folder}/\n{lines}")

    def _rendered(self, name: str, variables: dict[str, Any]) -> str:
        environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)  # noqa: S701 - no HTML
        return environment.from_string((ROLE / "templates" / name).read_text()).render(variables)

    def login(self, name: str, client_id: str | None = None) -> Session:
        """A session with NAME's certificate; raises as `open_session`."""
        files = TlsFiles.of(self.pki, name)
        return open_session(Broker("127.0.0.1", self.there.port, tls=files), client_id or name)


def lab(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run lab_ca.sh or lab_crl.sh."""
    command = [str(ROOT / f"ansible/lab_{script}.sh"), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RoleBroker]:
    """It runs."""
    made = RoleBroker(tmp_path)
    with made.there:
        yield made


def takes(session: Session, topic: str) -> int:
    """The reason code for a publish there."""
    mid = session.publish(topic, b"x")
    while not any(ack.mid == mid for ack in session.acks):
        session.step(0.1)
    return next(ack.code for ack in session.acks if ack.mid == mid)


def test_a_stolen_certificate_throws_nobody_off(broker: RoleBroker) -> None:
    kept = [broker.login("aggregator"), broker.login("kiosk-08"), broker.login("kiosk-07-b")]
    for stolen in ("aggregator", "kiosk-08", "kiosk-07-b", "kiosk-07-", "KIOSK-07", "x", "", ".kiosk-07"):
        with pytest.raises(BrokerRefused, match="0x87"):
            broker.login("kiosk-07", stolen or " ")
    for session in kept:
        session.subscribe("edge/v1/lobby/kiosk-07/counts")
        while not session.subscribed:
            session.step(0.1)  # raises, had it been thrown off
    own = [broker.login("kiosk-07", client_id) for client_id in ("kiosk-07", "kiosk-07.doctor", "kiosk-07.gate-1")]
    for session in own:
        assert takes(session, "edge/v1/lobby/kiosk-07/counts") < 0x80
        assert takes(session, "edge/v1/lobby/kiosk-08/counts") == 0x87
    kept[0].subscribe("edge/v1/#")
    for session in (*kept, *own):
        session.close()


def test_a_reader_may_ask_for_what_it_missed_and_for_nothing_else(broker: RoleBroker) -> None:
    session = broker.login("aggregator")
    assert takes(session, "edge/v1/lobby/kiosk-07/cmd/replay") < 0x80
    for leaf in ("cmd/pause", "cmd/identify", "counts", "status", "reply/r-1"):
        assert takes(session, f"edge/v1/lobby/kiosk-07/{leaf}") == 0x87
    session.close()


def test_a_subscribers_session_is_its_own_and_outlives_a_restart(broker: RoleBroker) -> None:
    """What an aggregator misses while it is away, and while the broker is, waits for it and for nobody else."""

    def visit(name: str, client_id: str) -> tuple[str, list[bytes]]:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        context = ssl.create_default_context(cafile=str(broker.pki / "ca.crt"))
        context.load_cert_chain(broker.pki / f"{name}.crt", broker.pki / f"{name}.key")
        client.tls_set_context(context)
        answers: list[str] = []
        heard: list[bytes] = []
        client.on_connect = lambda _c, _u, _f, reason, _p: answers.append(str(reason))
        client.on_subscribe = lambda *_: answers.append("subscribed")
        client.on_message = lambda _c, _u, message: heard.append(bytes(message.payload))
        stay = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        stay.SessionExpiryInterval = 3600
        client.connect("127.0.0.1", broker.there.port, clean_start=False, properties=stay)
        while not answers:
            client.loop(0.1)
        if answers == ["Success"]:
            client.subscribe("edge/v1/+/+/counts", qos=1)
            while len(answers) < 2:
                client.loop(0.1)
            client.disconnect()
            client.loop(0.1)
        return answers[0], heard

    assert visit("aggregator", "aggregator") == ("Success", [])
    publisher = broker.login("kiosk-07")
    assert takes(publisher, "edge/v1/lobby/kiosk-07/counts") == 0, "somebody waits for it"
    publisher.close()
    assert visit("kiosk-08", "aggregator") == ("Not authorized", [])
    broker.there.signal(signal.SIGTERM)
    broker.there.join()
    broker.there.start()
    publisher = broker.login("kiosk-07")
    assert takes(publisher, "edge/v1/lobby/kiosk-07/counts") == 0
    publisher.close()
    assert visit("aggregator", "aggregator") == ("Success", [b"x", b"x"])


def test_a_reload_takes_a_new_access_list_and_throws_nobody_off(broker: RoleBroker) -> None:
    """Each run of the role ends with one."""
    session = broker.login("kiosk-07")
    assert takes(session, "edge/v1/lobby/kiosk-07/counts") < 0x80
    acl = broker.folder / "edge.acl"
    acl.write_text(acl.read_text().replace("v1/lobby/kiosk-07/#", "v1/arcade/kiosk-07/#"))
    broker.there.signal(signal.SIGHUP)
    end = time.monotonic() + 20
    while takes(session, "edge/v1/lobby/kiosk-07/counts") < 0x80:
        assert time.monotonic() < end
    assert takes(session, "edge/v1/arcade/kiosk-07/counts") < 0x80
    session.close()


def test_a_user_name_that_is_sent_counts_for_nothing(broker: RoleBroker) -> None:
    files = TlsFiles.of(broker.pki, "kiosk-07")
    for client_id in ("operator", "kiosk-07"):
        there = Broker("127.0.0.1", broker.there.port, tls=files, username="operator")
        if client_id == "operator":
            with pytest.raises(BrokerRefused, match="0x87"):
                open_session(there, client_id)
            continue
        session = open_session(there, client_id)
        assert takes(session, "edge/v1/lobby/kiosk-08/cmd/pause") == 0x87
        session.close()


def test_a_revoked_certificate_is_told_so_and_every_older_one_with_it(broker: RoleBroker) -> None:
    broker.login("kiosk-07").close()
    for end in ("crt", "key"):
        shutil.copy(broker.pki / f"kiosk-07.{end}", broker.pki / f"older.{end}")
    lab("ca", broker.pki, "kiosk-07")  # renewed, for the same key
    for end in ("crt", "key"):
        shutil.copy(broker.pki / f"kiosk-07.{end}", broker.pki / f"stolen.{end}")
    lab("crl", broker.pki, "kiosk-07")
    broker.there.kill()
    broker.there.start()
    for thief in ("older", "stolen"):
        with pytest.raises(BrokerRefused, match="revoked: it needs a new key"):
            broker.login(thief, "kiosk-07")
    broker.login("kiosk-08").close()
    lab("ca", broker.pki, "kiosk-07")
    assert (broker.pki / "kiosk-07.key").read_bytes() != (broker.pki / "stolen.key").read_bytes()
    broker.login("kiosk-07").close()
    lab("crl", broker.pki)  # renewing the list revokes nobody, and forgets nobody
    command = ["openssl", "crl", "-in", str(broker.pki / "crl.pem"), "-noout", "-text"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.count("Serial Number") == 2


def test_nothing_is_revoked_when_a_name_is_unknown(tmp_path: Path) -> None:
    lab("ca", tmp_path, "kiosk-07")
    before = (tmp_path / "crl.pem").read_bytes()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        lab("crl", tmp_path, "kiosk-07", "kiosk-77")
    assert "knows no certificate of kiosk-77" in caught.value.stderr
    assert (tmp_path / "crl.pem").read_bytes() == before


def test_the_list_is_checked_before_it_locks_everybody_out(tmp_path: Path) -> None:
    """The command of the role's own task: a list of another CA, or one that has ended, is none."""
    lab("ca", tmp_path, "broker.example")
    lab("ca", tmp_path / "other", "broker.example")
    tasks = yaml.safe_load((ROLE / "tasks/main.yml").read_text())
    argv = next(t["ansible.builtin.command"]["argv"] for t in tasks if t["name"].startswith("Check the list"))
    variables = {"edge_tls_dir": str(tmp_path), "inventory_hostname": "broker.example"}
    command = [jinja2.Environment().from_string(word).render(variables) for word in argv]  # noqa: S701 - no HTML

    def checked() -> int:
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert checked() == 0
    good = (tmp_path / "crl.pem").read_bytes()
    shutil.copy(tmp_path / "other/crl.pem", tmp_path / "crl.pem")
    assert checked() != 0
    (tmp_path / "crl.pem").write_bytes(good)
    lab("crl", tmp_path, "broker.example")
    shutil.copy(next((tmp_path / "issued").glob("broker.example.revoked.crt")), tmp_path / "broker.example.crt")
    assert checked() != 0


def test_leaves_say_what_they_are_for(broker: RoleBroker) -> None:
    for name, use in (("broker.example", "TLS Web Server"), ("kiosk-07", "TLS Web Client")):
        certificate = str(broker.pki / f"{name}.crt")
        said = subprocess.run(
            ["openssl", "x509", "-in", certificate, "-noout", "-ext", "extendedKeyUsage"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert f"{use} Authentication" in said
    with pytest.raises(BrokerRefused, match="not for clients"):
        broker.login("broker.example")  # a server's certificate is no client's


def test_no_message_of_megabytes_and_no_queue_without_end(broker: RoleBroker) -> None:
    session = broker.login("operator")
    with pytest.raises(TooLarge):
        session.publish("edge/v1/lobby/kiosk-07/cmd/replay", b" " * 200_000, retain=True)
    session.close()
    lines = (broker.folder / f"mosquitto-{broker.there.port}.conf").read_text()
    assert "\nmax_queued_bytes 1073741824\n" in lines
    assert "\nmax_queued_messages 500000\n" in lines


TOPIC, BOOT, OTHER = "edge/v1/lobby/kiosk-07", "a" * 32, "b" * 32


def gate(broker: RoleBroker, *, seconds: float = 120, began: float = 0, hold: float = 0) -> subprocess.Popen[str]:
    """The gate waits for BOOT."""
    command = [sys.executable, str(ROOT / "ansible/roles/edge/files/gate.py"), "see", "--host=127.0.0.1"]
    command += [f"--port={broker.there.port}", f"--tls={broker.pki / 'operator'}", f"--topic={TOPIC}"]
    command += [f"--boot-id={BOOT}", f"--seconds={seconds}", f"--began={began}", f"--hold={hold}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def say(device: Session, leaf: str, *, retain: bool = True, **payload: object) -> None:
    """Publish something that a device says of itself, BOOT's unless told otherwise."""
    device.publish(f"{TOPIC}/{leaf}", json.dumps({"boot_id": BOOT} | payload).encode(), retain=retain)
    device.step(0.1)


def test_the_gate_passes_over_what_is_no_message_of_ours(broker: RoleBroker) -> None:
    device = broker.login("kiosk-07")
    for leaf, payload in (("counts", b"{"), ("live", b"[]"), ("status", b"7")):
        device.publish(f"{TOPIC}/{leaf}", payload, retain=True)
    say(device, "health", boot_id=OTHER, rate="ok", scene="ok")
    with gate(broker) as watching:
        while watching.poll() is None:
            say(device, "status", state="online")
            say(device, "counts", scene="ok", retain=False)
        assert watching.stdout is not None
        assert "counts and status of boot" in watching.stdout.read()
    assert watching.returncode == 0
    device.close()


def test_the_gate_confirms_what_sees_or_may_not_and_nothing_blind(broker: RoleBroker) -> None:
    device = broker.login("kiosk-07")
    say(device, "status", state="online")
    for figures, why in (
        ({"rate": "ok", "scene": "ok"}, None),
        ({"rate": "slow", "scene": "dark"}, None),  # at night
        ({"rate": "none", "scene": "paused", "paused": True}, None),
        ({"fps": 4.0, "scene": "ok"}, None),  # an earlier release, to which one goes back
        ({"rate": "none", "scene": "ok"}, "no frames come"),  # before the first frame
        ({"rate": "ok", "scene": "frozen", "paused": False}, "the camera is frozen"),
        ({"rate": "ok", "scene": "covered"}, "the camera is covered"),
    ):
        say(device, "health", **figures)
        with gate(broker, seconds=120 if why is None else 1) as watching:
            said, _ = watching.communicate()
        assert (watching.returncode, why or "health and status of boot" in said) == (bool(why), why or True), said
        assert why is None or f"health: {why}, status: well within 1 s" in said
    say(device, "health", rate="ok", scene="ok")
    say(device, "status", state="offline")
    with gate(broker, seconds=1) as watching:
        assert "status: not online" in watching.communicate()[0]
    assert watching.returncode == 1
    device.close()


def test_the_gate_waits_for_a_run_that_lasts_and_counts_from_its_beginning(broker: RoleBroker) -> None:
    device = broker.login("kiosk-07")
    say(device, "status", state="online")
    say(device, "health", rate="ok", scene="ok")
    with gate(broker, began=time.time() - 60, hold=60):  # seen late, where many gates take turns
        pass
    with gate(broker, seconds=1, began=time.time(), hold=3600) as watching:
        for _ in range(30):  # well for longer than `seconds`, and a late window and will of the run before end nothing
            say(device, "counts", boot_id=OTHER, retain=False)
            say(device, "status", boot_id=OTHER, state="offline", retain=False)
        assert watching.poll() is None
        while watching.poll() is None:
            say(device, "health", boot_id=OTHER, rate="ok", scene="ok", retain=False)
        assert watching.stdout is not None
        assert "vision ended and was started again" in watching.stdout.read()
    assert watching.returncode == 1
    device.close()


def test_the_gate_outlives_a_restart_of_the_broker(broker: RoleBroker) -> None:
    say(device := broker.login("kiosk-07"), "status", state="online")
    with gate(broker) as watching:
        while watching.poll() is None and "Received SUBSCRIBE from operator.gate-" not in broker.there.log:
            device.step(0.1)
        broker.there.signal(signal.SIGTERM)
        broker.there.join()
        broker.there.start()
        say(device := broker.login("kiosk-07"), "health", rate="ok", scene="ok")
        assert watching.wait() == 0, watching.communicate()
    device.close()


def test_health_does_not_have_everything_written_each_time(broker: RoleBroker) -> None:
    """A fleet's health would be gigabytes a day, and the broker does nothing else while it writes."""
    device = broker.login("kiosk-07")
    for n in range(20):
        device.publish(f"{TOPIC}/health", b"%d" % n, retain=True)
        assert takes(device, f"{TOPIC}/counts") < 0x80
    device.close()
    stored = broker.folder / "mosquitto.db"
    assert not stored.exists()
    broker.there.signal(signal.SIGTERM)  # an orderly stop does
    broker.there.join()
    assert stored.exists()


def test_gate_and_doctor_get_in_beside_the_publisher(broker: RoleBroker) -> None:
    publisher = broker.login("kiosk-07")
    gate = ROOT / "ansible/roles/edge/files/gate.py"
    for name in ("operator", "kiosk-07"):
        command = [sys.executable, str(gate), "forget", "--host=127.0.0.1", f"--port={broker.there.port}"]
        command += [f"--tls={broker.pki / name}", "--topic=edge/v1/lobby/kiosk-07"]
        subprocess.run(command, check=True, timeout=60)
    config = broker.folder / "config.toml"
    config.write_text(
        '[device]\nid = "kiosk-07"\nsite = "lobby"\npurpose = "audience-statistics"\nmode = "development"\n'
        '[camera]\nkind = "replay"\nsource = "x.mp4"\n'
        f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.there.port}\nhome_assistant = "homeassistant"\n'
        'tls = { ca = "pki/ca.crt", cert = "pki/kiosk-07.crt", key = "pki/kiosk-07.key" }\n'
        '[models]\nbundle = "bundle"\n[storage]\noutbox = "outbox.db"\nruntime = "run"\n'
    )
    code = (
        "import sys; from pathlib import Path; from edge import config; "
        "from edge.commands.doctor.broker import broker; "
        "print(*broker(config.load(Path(sys.argv[1]))), sep='\\n')"
    )
    command = [sys.executable, "-c", code, str(config)]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert "came back" in said.stdout, said
    assert "is taken" in said.stdout, said
    assert "level='error'" not in said.stdout, said
    publisher.step(0.1)  # raises, had it been thrown off
    publisher.close()

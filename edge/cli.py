"""`edge`: the appliance's command line. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import io
import logging
import os
import resource
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from edge import __version__
from edge.errors import ConfigError, EdgeError, StorageError, install
from edge.process import logs
from edge.process.shown import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.config import Config


_OR_DEFAULTS: Final = "config.toml (without: development defaults)"
_OR_HERE: Final = "the configuration (without: config.toml in this folder)"
_NEEDED: Final = "config.toml; needed"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Repeat no secret of an argument that nobody asked for."""
        super().error(shown(message))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (table: docs/operate.md). Never shows a user a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be no text
    args = _parser().parse_args(argv)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # several commands see faces: a crash must write none to disk
    logs.set_up(logging.WARNING if getattr(args, "quiet", False) else logging.INFO)
    try:
        return int(args.func(args))
    except EdgeError as error:
        # Problems of a configuration are a line each, made fit to be shown one by one.
        print(f"edge: {error if hasattr(error, 'problems') else shown(error)}", file=sys.stderr)
        return error.exit_code
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] == "edge":
            raise
        print(f"edge: {error.name} is not installed: {install('device')}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # of a file that no stage speaks for: no temporary folder, a full disk
        if error.filename is None and error.errno is None:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        text = f"{where}{error.strerror}: mend the path, its rights or the disk, or set TMPDIR to a folder with room"
        print(f"edge: {shown(text)}", file=sys.stderr)
        return StorageError.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="edge", description="Anonymised facial-expression counts from a camera.")
    parser.add_argument("--version", action="version", version=f"edge {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str, *, config: str | None = _OR_DEFAULTS) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(func=globals()[f"_{name.replace('-', '_')}"])
        if config is not None:
            sub.add_argument("--config", type=Path, metavar="FILE", help=config)
        return sub

    run = add("run", "both services, until the source ends or SIGTERM")
    run.add_argument(
        "--drain-timeout", type=_seconds, default=30.0, metavar="S", help="wait for the broker at the end (30)"
    )
    run.add_argument("--source", help="a clip, picture, folder or /dev/video0 (development mode)")
    vision = add("vision", "the vision service: camera to outbox")
    vision.add_argument("--source", help="a clip, picture, folder or /dev/video0 (development mode)")
    vision.add_argument("--annotate", type=Path, metavar="OUT", help="draw what is seen to OUT.mp4 or OUT.png")
    vision.add_argument("--lifeline", action="store_true", help=argparse.SUPPRESS)
    publish = add("publish", "the publisher service: outbox to broker", config=_NEEDED)
    publish.add_argument("--drain-timeout", type=_seconds, default=None, metavar="S", help=argparse.SUPPRESS)
    publish.add_argument("--lifeline", action="store_true", help=argparse.SUPPRESS)
    demo = add("demo", "the whole path on real faces, with a broker of its own", config=None)
    demo.add_argument("--source", help="your own clip, picture, folder or /dev/video0 instead of the built-in clip")
    demo.add_argument(
        "--broker", choices=("auto", "mosquitto", "amqtt"), default="auto", help="which broker to start (what is there)"
    )
    demo.add_argument("--seconds", type=_seconds, default=60.0, help="how long a camera is watched (60)")
    check = add("check-config", "every problem of a configuration, with line and key", config=_OR_HERE)
    check.add_argument("--json", action="store_true", help="for programs")
    doctor = add("doctor", "what is wrong with this device, why that matters, how to mend it", config=_OR_HERE)
    doctor.add_argument("--json", action="store_true", help="for programs")
    status = add("status", "what the services say of themselves", config=_NEEDED)
    status.add_argument("--json", action="store_true", help="for programs")
    bench = add("bench", "how fast this device is: each model, and the whole chain on the demo's clip")
    bench.add_argument("--accelerator", choices=("auto", "edgetpu", "cpu"), help="instead of the configuration's")
    bench.add_argument("--invocations", type=_positive, default=200, metavar="N", help="of each model (200)")
    bench.add_argument("--frames", type=_positive, default=120, metavar="N", help="of the whole chain (120)")
    bench.add_argument("--json", action="store_true", help="for programs")
    bench.set_defaults(quiet=True)
    return parser


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        msg = f"{text[:20]!r} is no whole number above 0"
        raise argparse.ArgumentTypeError(msg)
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not number >= 0:  # nan is not, either
        msg = f"{text[:20]!r} is no number of seconds from 0 on"
        raise argparse.ArgumentTypeError(msg)
    return number


def _config(args: argparse.Namespace, stack: ExitStack) -> Config:
    """The configuration of a command.

    Its storage is a folder that ends with the command, where there is no --config, or `edge run --source` might else
    leave windows of a clip to a publisher.
    """
    from edge import config as settings

    source: str | None = getattr(args, "source", None)
    if args.config is None:
        return _apart(settings.development(source), stack)
    config = settings.load(args.config)
    if source is not None:
        if config.device.mode == "production":
            msg = f'--source is refused: {args.config} says device.mode = "production"'
            raise ConfigError(msg)
        config = config.model_copy(update={"camera": (settings.camera_of(source),)})
        if args.func is _run:
            config = _apart(config, stack)
    return config


def _apart(config: Config, stack: ExitStack) -> Config:
    """The same with a storage of its own, deleted with `stack`."""
    from edge import config as settings

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-")))
    storage = settings.StorageSection(outbox=folder / "outbox.db", runtime=folder / "run")
    return config.model_copy(update={"storage": storage})


def _vision(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        config = _config(args, stack)
        annotation = None
        if args.annotate is not None:
            if config.device.mode == "production":
                msg = '--annotate is refused: it would write faces to a file, and device.mode is "production"'
                raise ConfigError(msg)
            from edge.vision.annotate import Annotation

            annotation = Annotation(args.annotate)
        from edge.vision.service import Vision

        service = Vision(config, on_frame=annotation.add if annotation else None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: service.stop())
        try:
            service.run(lifeline=args.lifeline)
        finally:
            if annotation is not None:
                annotation.close()
        if annotation is not None:
            print(args.annotate)
        elif args.config is None or args.func is _run:
            _print_windows(config)
    return 0


def _print_windows(config: Config) -> None:
    """What this run would have published, one JSON line a window: the only output of a run without a broker."""
    from edge.contract import counts_payload, encode
    from edge.outbox.outbox import Outbox

    with Outbox(config.storage.outbox) as outbox:
        boot_id, seq = outbox.current_boot() or "", 0
        while rows := outbox.between(boot_id, seq + 1, 2**63 - 1):
            for row in rows:
                payload = counts_payload(
                    row.report(),
                    site=config.device.site,
                    device=config.device.id,
                    boot_id=row.boot_id,
                    seq=row.seq,
                    prev=row.prev,
                )
                print(encode(payload).decode())
            seq = rows[-1].seq


def _publish(args: argparse.Namespace) -> int:
    if args.config is None:
        msg = "edge publish needs --config FILE with an [mqtt] section"
        raise ConfigError(msg)
    from edge import config as settings
    from edge.publisher.service import run_publisher

    return run_publisher(settings.load(args.config), drain_timeout=args.drain_timeout, lifeline=args.lifeline)


def _run(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        config = _config(args, stack)
    if config.mqtt is None or args.source is not None:
        print("edge: no [mqtt] in use: windows are printed, not published", file=sys.stderr)
        args.annotate, args.lifeline = None, False
        return _vision(args)
    from edge.process.supervision import Supervisor

    return Supervisor(args.config, args.drain_timeout).run()


def _demo(args: argparse.Namespace) -> int:
    from edge.commands.demo.run import run_demo

    return run_demo(source=args.source, seconds=args.seconds, broker_kind=args.broker)


def _check_config(args: argparse.Namespace) -> int:
    from edge.commands.check_config import run_check_config

    return run_check_config(args.config or Path("config.toml"), as_json=args.json)


def _doctor(args: argparse.Namespace) -> int:
    from edge.commands.doctor import run_doctor

    return run_doctor(args.config or Path("config.toml"), as_json=args.json)


def _status(args: argparse.Namespace) -> int:
    if args.config is None:
        msg = "edge status needs --config FILE to know where the services keep their files"
        raise ConfigError(msg)
    from edge import config as settings
    from edge.commands.status import run_status

    return run_status(settings.load(args.config).storage, as_json=args.json)


def _bench(args: argparse.Namespace) -> int:
    from edge import config as settings
    from edge.commands.bench import run_bench

    config = settings.development() if args.config is None else settings.load(args.config)
    if args.accelerator is not None:
        models = config.models.model_copy(update={"accelerator": args.accelerator})
        config = config.model_copy(update={"models": models})
    return run_bench(config, invocations=args.invocations, frames=args.frames, as_json=args.json)

"""A clumsy operator: each mistake is one line that says what, where and what to do; nothing is left half done."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from edge_aggregate.calibration import Table
from edge_aggregate.cli import main
from edge_aggregate.decode import milliseconds
from edge_aggregate.figures import city_while_open, figures, local_series, read
from edge_aggregate.ingest import ingest_files
from edge_aggregate.periods import Period, zone
from edge_aggregate.sites import read_sites
from edge_aggregate.store import open_store

from tests.support.refused import refused
from tests.support.windows import DAY, window, write_log

if TYPE_CHECKING:
    from pathlib import Path

AGGREGATE = [sys.executable, "-m", "edge_aggregate"]
CAPABILITIES = "-dac_override,-dac_read_search"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """One with two days of two kiosks at two sites; at night they see nothing."""
    lines = [
        window(
            hour + 1,
            start=DAY + timedelta(hours=hour),
            site=site,
            device=f"at-{site}",
            cells={"unmasked_happy": 12, "unmasked_sad": 12},
            coverage=1.0 if 8 <= hour % 24 < 20 else 0.0,
        )
        for site in ("lobby", "hall")
        for hour in range(48)
    ]
    path = tmp_path / "store.db"
    with open_store(str(path), create=True) as opened:
        ingest_files(opened, [write_log(tmp_path / "log.jsonl", lines)])
    return path


def ordinary(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """A command run by somebody who may not write where the folder's mode says so, as root may."""
    drop: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write anywhere, and there is no setpriv to take that away")
        drop = ["setpriv", f"--bounding-set={CAPABILITIES}", f"--inh-caps={CAPABILITIES}"]
    whole = [*drop, *AGGREGATE, *map(str, command)]
    return subprocess.run(whole, capture_output=True, text=True, check=False, timeout=120)


def test_a_port_in_use_and_an_address_of_another_machine(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        message = refused(capsys, "serve", "--store", store, "--listen", listen)
    assert message == (
        f"edge-aggregate: --listen {listen}: cannot be used (Address already in use): name another address or port"
    )


def test_a_store_that_is_misspelt_is_said_when_pages_start(tmp_path: Path) -> None:
    command = [*AGGREGATE, "serve", "--store", str(tmp_path / "none.db"), "--listen", "127.0.0.1:0"]
    pages = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert pages.stdout is not None
    assert pages.stderr is not None
    try:
        assert pages.stdout.readline().startswith("http://127.0.0.1:")
        assert "nothing to show yet: " in (message := pages.stderr.readline())
        assert "none.db: no store is there" in message
    finally:
        pages.terminate()
        pages.communicate(timeout=60)


def test_an_address_of_another_database_is_told_without_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (("index",), ("ingest", "--files", "x.jsonl"), ("backup", "copy.db")):
        message = refused(capsys, *command, "--store", "mysql://anna:secret@db/figures")
        assert "mysql://…: is no store: give the path of a file, or postgresql://user@host/database" in message
        assert "secret" not in message


def test_a_folder_that_may_only_be_read(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    shutil.copy(store, folder / "store.db")
    folder.chmod(0o555)
    try:
        done = ordinary("index", "--store", folder / "store.db")
        assert done.returncode == 74
        assert "cannot be read by this user while nobody writes it" in done.stderr
        assert "let this user write to its folder" in done.stderr
        assert "cannot be written" not in done.stderr

        broker = ["--broker", "127.0.0.1:1", "--landing", str(folder)]
        done = ordinary("ingest", "--store", tmp_path / "new.db", *broker)
        assert (done.returncode, len(done.stderr.splitlines())) == (74, 1), done.stderr
        assert f"{folder}: this user may not write there: name another folder" in done.stderr
    finally:
        folder.chmod(0o755)


def test_a_backup_can_be_read_where_nothing_may_be_written(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    assert main(["backup", "--store", str(store), str(folder / "copy.db")]) == 0
    folder.chmod(0o555)
    try:
        done = ordinary("index", "--store", folder / "copy.db", "--from", "2026-03-02", "--to", "2026-03-04")
        assert (done.returncode, done.stderr) == (0, "")
        assert "1152 of 2304" not in done.stdout
        assert "576 of 1152" in done.stdout
    finally:
        folder.chmod(0o755)


def test_a_copy_that_cannot_be_made_names_the_copy(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "none" / "copy.db"
    assert refused(capsys, "backup", "--store", store, copy).startswith(f"edge-aggregate: {copy}: cannot be opened")


def test_a_restore_of_nothing_leaves_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "junk").write_bytes(bytes(range(256)) * 16)
    for source in ("junk", "none"):
        assert source in refused(capsys, "restore", "--store", tmp_path / "new.db", tmp_path / source)
        assert not (tmp_path / "new.db").exists()


def test_a_restore_into_a_store_with_anything_in_it_is_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backup", "--store", str(store), str(tmp_path / "copy.db")]) == 0
    table = Table("fer_masked", "sha256:" + "0" * 64, tuple((9,) * 8 for _ in range(7)), "bundle")
    with open_store(str(tmp_path / "new.db"), create=True) as opened:
        opened.register([table])
    message = refused(capsys, "restore", "--store", tmp_path / "new.db", tmp_path / "copy.db")
    assert message.endswith("new.db: is not empty: restore into a new store")
    with open_store(str(tmp_path / "new.db")) as opened:
        assert opened.tables() == [table]


def test_files_that_cannot_be_exported_to(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x.csv", "x.parquet"):
        if name.endswith("parquet"):
            pytest.importorskip("pyarrow")
        message = refused(capsys, "export", "--store", store, "--out", tmp_path / "none" / name)
        assert message == (
            f"edge-aggregate: {tmp_path / 'none' / name}: No such file or directory: name a file in a folder that is"
            " there, with room"
        )


def test_a_site_that_nobody_heard_of_is_told_with_those_that_are_there(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ((), ("--by", "day"), ("--by", "hour-of-week"), ("--compare",)):
        message = refused(capsys, "index", "--store", store, "--site", "loby", *option)
        assert message == "edge-aggregate: no window ever came from a site called 'loby': there is hall, lobby"


def test_hours_of_the_week_are_of_28_days_unless_said(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "--store", str(store), "--site", "lobby", "--by", "hour-of-week"]) == 0
    shown = capsys.readouterr().out
    assert "mon     50" in shown
    assert "the last of these days will still change" in shown
    week = ["--by", "hour-of-week", "--last", "7d"]
    assert "28 days, as in --last 28d" in refused(capsys, "index", "--store", store, "--site", "lobby", *week)


def test_coverage_is_that_of_opening_hours_wherever_it_is_shown(store: Path, tmp_path: Path) -> None:
    (tmp_path / "sites.toml").write_text(
        '[sites.lobby]\ncity = "here"\nhours = { mon-sun = "08:00-20:00" }\n[sites.hall]\ncity = "here"\n'
    )
    places = read_sites(tmp_path / "sites.toml")
    period = Period(milliseconds(DAY), milliseconds(DAY + timedelta(days=2)))
    with open_store(str(store), read_only=True) as opened:
        whole = {one.site: one.coverage for one in figures(opened, period, None, places)}
        assert whole == {"hall": 0.5, "lobby": 1.0}
        by_day = local_series(opened, period, zone("UTC"), None, places)
        assert [(one.site, one.coverage) for one in by_day] == [("hall", 0.5), ("lobby", 1.0)] * 2
        reading = read(opened, period)
        members, weights = places.weighed("here", "votes")
        city = reading.city("here", members, weights)
        assert city is not None
        together = city_while_open(opened, reading, city.figure, members, places)
        assert together.coverage == (24 + 24) / (24 + 48)
        assert together.index == city.figure.index


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("pyarrow", "parquet", ("export", "--store", "{store}", "--out", "{folder}/x.parquet")),
        ("psycopg", "postgres", ("index", "--store", "postgresql://nobody@127.0.0.1:1/none")),
        (
            "py4j",
            "spark",
            ("ingest", "--store", "{folder}/new.db", "--files", "{folder}/log.jsonl", "--runner", "spark"),
        ),
        (
            "pyspark",
            "spark",
            ("ingest", "--store", "{folder}/new.db", "--files", "{folder}/log.jsonl", "--runner", "spark"),
        ),
    ],
)
def test_a_package_that_is_not_installed_is_told_with_what_installs_it(
    store: Path, tmp_path: Path, package: str, extra: str, command: tuple[str, ...]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    whole = [*AGGREGATE, *(part.format(store=store, folder=tmp_path) for part in command)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(whole, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == 2
    assert (
        done.stderr
        == f'edge-aggregate: {package} is not installed: in a clone: .venv/bin/pip install -e ".[{extra}]"\n'
    )


def test_a_period_that_begins_after_the_newest_message(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "index", "--store", store, "--from", "2027-01-01")
    assert message == (
        "edge-aggregate: --from 2027-01-01: nothing is newer than 2026-03-04T00:00:01Z: give a time before it"
    )
    open_store(str(tmp_path / "empty.db"), create=True).close()
    assert main(["index", "--store", str(tmp_path / "empty.db"), "--from", "2026-03-01"]) == 0
    assert "the store is empty" in capsys.readouterr().out


def test_a_file_without_a_row_has_its_columns_and_nulls_have_a_type(store: Path, tmp_path: Path) -> None:
    empty = ["--from", "2026-01-01", "--to", "2026-01-02"]
    for more in (empty, [], ["--dead-letters"]):
        assert main(["export", "--store", str(store), "--out", str(tmp_path / "x.csv"), *more]) == 0
        assert (
            (tmp_path / "x.csv").read_text().startswith("kind,reason," if "--dead-letters" in more else "site,granul")
        )
    parquet = pytest.importorskip("pyarrow.parquet")
    for more in (empty, []):
        assert main(["export", "--store", str(store), "--out", str(tmp_path / "x.parquet"), *more]) == 0
        schema = parquet.read_schema(tmp_path / "x.parquet")
        assert str(schema.field("index_corrected").type) == "double", "no model is registered: nothing but nulls"
        assert str(schema.field("masked_happy").type) == "int64"

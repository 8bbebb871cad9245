"""Peers' files are read back and their processes watched; no peer is installed or run."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verification.benchmarks.messages import generate
from verification.benchmarks.peers import installs
from verification.benchmarks.peers.contenders import iceberg_rows
from verification.benchmarks.peers.verify import RowCount, contents, parquet_files
from verification.benchmarks.peers.watch import Launch, PeerFailedError, watch

MESSAGES = 50


@pytest.fixture(scope="module")
def rows() -> list[dict[str, object]]:
    values, _ = generate(MESSAGES)
    return [json.loads(value) | {"payload": value.decode()} for value in values]


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def test_everything_once_in_several_files(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    write(tmp_path / "0" / "a.parquet", rows[:20])
    write(tmp_path / "1" / "b.parquet", rows[20:])

    found = contents(parquet_files(tmp_path), MESSAGES)

    assert (found.rows, found.lost, found.duplicated, found.payloads) == (MESSAGES, 0, 0, MESSAGES)
    assert found.untyped == ("event_ts",)


def test_lost_and_repeated_messages_are_counted(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    write(tmp_path / "a.parquet", rows[:20])
    write(tmp_path / "b.parquet", rows[17:40])

    found = contents(parquet_files(tmp_path), MESSAGES)

    assert (found.rows, found.lost, found.duplicated) == (43, 10, 3)


def test_a_payload_of_another_message_is_not_kept(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    mixed = [rows[0] | {"payload": rows[1]["payload"]}, rows[1] | {"payload": None}, rows[2]]
    write(tmp_path / "a.parquet", mixed)

    assert contents(parquet_files(tmp_path), 3).payloads == 1


def test_without_a_payload_column_none_is_kept(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    write(tmp_path / "a.parquet", [{k: v for k, v in row.items() if k != "payload"} for row in rows])

    assert contents(parquet_files(tmp_path), MESSAGES).payloads == 0


def test_a_file_without_its_footer_counts_once_it_is_complete(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    path = tmp_path / "a.parquet"
    write(path, rows)
    whole, count = path.read_bytes(), RowCount(tmp_path)
    path.write_bytes(whole[: len(whole) // 2])

    assert (count(), parquet_files(tmp_path)) == (0, [])
    path.write_bytes(whole)
    assert (count(), parquet_files(tmp_path)) == (MESSAGES, [path])


def test_rows_of_a_table_are_those_of_its_newest_snapshot(tmp_path: Path) -> None:
    assert iceberg_rows(tmp_path) == 0
    (tmp_path / "version-hint.text").write_text("3")
    snapshots = [{"snapshot-id": n, "summary": {"total-records": str(10 * n)}} for n in (1, 2)]
    (tmp_path / "v3.metadata.json").write_text(json.dumps({"current-snapshot-id": 2, "snapshots": snapshots}))
    assert iceberg_rows(tmp_path) == 20


def launch(script: str, rows: RowCount, *, ends_itself: bool) -> Launch:
    return Launch([sys.executable, "-c", script], "^reads now$", rows, ends_itself)


WRITES = "print('reads now', flush=True); open('output/a', 'w').write('x'); "


def test_a_peer_that_ends_itself_is_measured(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    script = WRITES + "sum(range(3_000_000)); import time; time.sleep(0.3)"

    life = watch(
        launch(script, RowCount(tmp_path), ends_itself=True), 1, tmp_path / "output", tmp_path / "log"
    )

    assert 0 < life.consuming_cpu_s <= life.cpu_s
    assert life.consuming_s <= life.whole_s < 60
    assert life.peak_rss_bytes > 1_000_000


def test_a_peer_that_goes_on_is_asked_to_end_when_all_is_there(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    write(tmp_path / "rows.parquet", rows)
    (tmp_path / "output").mkdir()
    script = (
        "import shutil, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('asked', flush=True), sys.exit(0)))\n"
        "print('reads now', flush=True); time.sleep(0.3)\n"
        "shutil.copy('rows.parquet', 'output/a.parquet'); time.sleep(600)"
    )
    goes_on = launch(script, RowCount(tmp_path / "output"), ends_itself=False)

    watch(goes_on, MESSAGES, tmp_path / "output", tmp_path / "log")

    assert (tmp_path / "log").read_text() == "reads now\nasked\n"


@pytest.mark.parametrize("ends_itself", [True, False])
def test_a_peer_that_dies_is_an_error_with_the_end_of_its_log(tmp_path: Path, ends_itself: bool) -> None:
    (tmp_path / "output").mkdir()
    script = "print('reads now', flush=True); raise SystemExit('no such topic')"

    with pytest.raises(PeerFailedError, match=r"code 1.*no such topic"):
        watch(
            launch(script, RowCount(tmp_path), ends_itself=ends_itself),
            1,
            tmp_path / "output",
            tmp_path / "l",
        )


def test_an_environment_is_made_once_and_again_only_when_it_was_not_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[Path] = []

    def fails(folder: Path) -> None:
        folder.mkdir()
        raise installs.NotInstalledError("no network")

    def succeeds(folder: Path) -> None:
        folder.mkdir()
        made.append(folder)

    with pytest.raises(installs.NotInstalledError, match="no network"):
        installs._installed("peer", "1.0", fails)
    first, second = (installs._installed("peer", "1.0", succeeds) for _ in range(2))
    other = installs._installed("peer", "1.1", succeeds)

    assert first == second and made == [first, other]


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(installs.NotInstalledError, match="no `go` here"):
        installs.go_program("peer", tmp_path)
    with pytest.raises(installs.NotInstalledError, match="no `mvn` here"):
        installs.maven_jars("peer", tmp_path / "pom.xml")

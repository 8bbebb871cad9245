"""`petwellness quarantine` and `petwellness claims`: what a person on call sees and does."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from governance.quarantine.scope import QuarantineRequestError
from lake.landing import Manifest, list_claims
from lake.quarantine import load_quarantine
from lake.store import LocalStore
from petwellness_orchestration.cli import expected_line
from petwellness_orchestration.cli.app import app
from petwellness_orchestration.cli.entries import ReasonError

from .conftest import START, STREAM

Land = Callable[..., Manifest]
WHERE = ("--stream", STREAM, "--partition", "0")
WHY = ("--reason", "stamped 2036", "--by", "ann")


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path))
    return LocalStore(tmp_path / "lake")


def command(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_a_message_from_the_future_is_found_quarantined_listed_and_released(
    lake: LocalStore, land_telemetry: Land
) -> None:
    land_telemetry(lake, 0, 5)
    land_telemetry(lake, 5, 1, first_ts=datetime(2036, 1, 1))
    found = command("quarantine", "find", "--arrival-after", "2027-01-01")
    assert f"{STREAM} partition 0 offset 5: received 2036-01-01 00:00:02" in found
    [line] = [line for line in found.splitlines() if line.startswith("petwellness ")]
    proposed = line.replace("'...'", "stamped-2036").split()[1:]
    looked = command(*proposed)
    assert "covers         1 rows of 1 devices, event days 2036-01-01" in looked
    assert "quarantined    0 rows before, 1 after" in looked
    assert load_quarantine(lake).entries == ()
    command("quarantine", "add", *WHERE, "--offset", "5", *WHY)
    [entry] = load_quarantine(lake).entries
    assert (entry.reason, entry.entered_by) == ("stamped 2036", "ann")
    assert "quarantined already; nothing was changed" in command(
        "quarantine", "add", *WHERE, "--offset", "5", *WHY
    )
    assert len(load_quarantine(lake).entries) == 1
    listed = command("quarantine", "list")
    assert re.search(
        rf"{entry.quarantine_id}  .*  ann  in force\n  stamped 2036\n  1 rows of 1 devices", listed
    )
    assert "nothing was changed" in command(
        "quarantine", "release", entry.quarantine_id, "--reason", "it was right", "--dry-run"
    )
    command("quarantine", "release", entry.quarantine_id, "--reason", "it was right", "--by", "bob")
    assert load_quarantine(lake).spans == ()
    assert re.search(r"ann  released .* by bob: it was right", command("quarantine", "list"))


def test_rows_in_a_row_are_proposed_as_a_range(lake: LocalStore, land_telemetry: Land) -> None:
    land_telemetry(lake, 0, 5)
    land_telemetry(lake, 5, 3, first_ts=datetime(1970, 1, 1))
    land_telemetry(lake, 8, 2)
    land_telemetry(lake, 10, 1, first_ts=datetime(1970, 1, 1))
    found = command("quarantine", "find", "--arrival-before", "2000-01-01")
    assert [line.split("--partition 0 ")[1] for line in found.splitlines() if "add" in line] == [
        "--start 5 --end 8 --reason '...' --dry-run",
        "--offset 10 --reason '...' --dry-run",
    ]
    assert "no landed row" in command("quarantine", "find", "--arrival-after", "2030-01-01")


def test_of_a_range_only_what_is_new_is_entered(lake: LocalStore, land_telemetry: Land) -> None:
    for day in range(3):
        land_telemetry(lake, 4 * day, 4, first_ts=START + day * timedelta(days=1))
    command("quarantine", "add", *WHERE, "--offset", "5", "--offset", "6", *WHY)
    added = command("quarantine", "add", *WHERE, "--start", "2", "--end", "9", *WHY)
    assert "covers         5 rows of 1 devices, event days 2026-06-01, 2026-06-02, 2026-06-03" in added
    assert "quarantined    2 rows before, 7 after" in added
    assert [(span.start, span.end) for span in load_quarantine(lake).spans] == [(5, 7), (2, 5), (7, 9)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--stream", "other", "--partition", "0", "--offset", "1"), r"stream 'other'.*such as .*topic1"),
        (("--stream", STREAM, "--partition", "7", "--offset", "1"), "partition 7 has landed; there is 0"),
        ((*WHERE, "--offset", "99"), r"offsets \[99, 100\) .* have not landed; landed are \[0, 7\)"),
        ((*WHERE, "--offset", "6"), "offset 6 .* is no row: it was rejected"),
        ((*WHERE, "--start", "5", "--end", "5"), "holds no offset"),
        ((*WHERE, "--start", "5", "--end", "7"), "holds no row"),
        (("--stream", STREAM, "--partition", "0", "--start", "3", "--end", "9"), r"\[7, 9\) .* not landed"),
    ],
)
def test_what_cannot_be_quarantined_is_named(
    lake: LocalStore, land_telemetry: Land, arguments: tuple[str, ...], says: str
) -> None:
    land_telemetry(lake, 0, 5, rejected=2)
    with pytest.raises(QuarantineRequestError, match=says) as failed:
        command("quarantine", "add", *arguments, *WHY)
    assert expected_line(failed.value)
    assert load_quarantine(lake).entries == ()


def test_an_entry_needs_a_reason_and_a_request_that_is_one_thing(
    lake: LocalStore, land_telemetry: Land
) -> None:
    land_telemetry(lake, 0, 5)
    with pytest.raises(ReasonError, match="needs a reason"):
        command("quarantine", "add", *WHERE, "--offset", "1")
    with pytest.raises(ReasonError, match="give --by with a staff number"):
        command("quarantine", "add", *WHERE, "--offset", "1", *WHY[:2], "--by", "ann@example.org")
    command("quarantine", "add", *WHERE, *WHY, code=2)
    command("quarantine", "add", *WHERE, "--offset", "1", "--start", "0", "--end", "2", *WHY, code=2)
    command("quarantine", "find", code=2)
    with pytest.raises(QuarantineRequestError, match="no entry 'q-1'"):
        command("quarantine", "release", "q-1", *WHY)
    assert "nothing was ever quarantined" in command("quarantine", "list")


def overlapping(lake: LocalStore, land_telemetry: Land) -> None:
    land_telemetry(lake, 100, 100)
    land_telemetry(lake, 0, 200)
    land_telemetry(lake, 30, 5, partition=1)


def test_superseding_names_the_claim_first_and_then_sets_it_aside(
    lake: LocalStore, land_telemetry: Land
) -> None:
    overlapping(lake, land_telemetry)
    shown = command("claims", "supersede", "--dry-run")
    assert re.search(r"supersedes     .* partition 0 \[100, 200\) of landing/.*\+100\+200.parquet", shown)
    assert f"closes         {STREAM} partition 1 [0, 30) as a gap" in shown
    assert (load_quarantine(lake).entries, len(list_claims(lake))) == ((), 3)
    command("claims", "supersede", "--by", "ann")
    [entry] = load_quarantine(lake).entries
    assert (entry.entered_by, entry.reason) == ("ann", "claims of a partition overlap")
    assert [(c.partition, c.start) for c in list_claims(lake)] == [(0, 0), (0, 100), (1, 0), (1, 30)]
    assert "no claim has to be mended" in command("claims", "supersede")
    with pytest.raises(QuarantineRequestError, match="would be there twice"):
        command("quarantine", "release", entry.quarantine_id, *WHY)


def test_what_cannot_be_superseded_ends_with_1(lake: LocalStore, land_telemetry: Land) -> None:
    land_telemetry(lake, 0, 10)
    landed: Any = land_telemetry(lake, 5, 5)
    lake.delete(f"_manifests/{STREAM}/00000/{landed.start:020}.json")
    assert "nothing was changed" in command("claims", "supersede", code=1)

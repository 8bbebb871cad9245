"""The runbook for telemetry dropouts, rehearsed: break the platform, find the gaps, close them, prove it.

docs/runbooks/telemetry-dropouts.md; every command here is one of that page.
"""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingestion.broker.client import connect
from ingestion.broker.embedded import EmbeddedBroker
from ingestion.settings import BrokerSettings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "runbooks" / "telemetry-dropouts.md"

# A collector that is killed when it is about to write its first file: its claims are made by then.
KILLED_WHILE_LANDING = """
import os, signal, sys
from pathlib import Path
from ingestion.broker.client import connect
from ingestion.collector.engine import Collector
from lake import layout
from lake.store import LocalStore
from ingestion.settings import BrokerSettings, CollectorSettings

class Killing(LocalStore):
    def put_new(self, key, data):
        if key.startswith(layout.LANDING):
            os.kill(os.getpid(), signal.SIGKILL)
        super().put_new(key, data)

home = Path(sys.argv[1])
client = connect(BrokerSettings(), home)
Collector(client, Killing(home / "lake"), CollectorSettings(), ["telemetry"]).drain()
"""


@dataclass
class Incident:
    """A platform in which things go wrong, and the commands to deal with it."""

    home: Path
    environment: dict[str, str]
    petwellness: Callable[..., "subprocess.CompletedProcess[str]"]
    sent: int = 0
    device: str = ""
    day: str = ""
    used: list[str] = field(default_factory=list)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        self.used.append(" ".join(arguments))
        return self.petwellness(*arguments, env=self.environment)

    def succeeds(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def gaps(self) -> dict[str, list[tuple[str, int]]]:
        """Open gaps by kind: where, and how many."""
        done = self.run("gaps", "--format", "json")
        seen = json.loads(done.stdout)
        found: dict[str, list[tuple[str, int]]] = {}
        for gap in seen["gaps"]:
            if gap["open"]:
                found.setdefault(gap["kind"], []).append((gap["where"], gap["count"]))
        assert seen["open"] == bool(found)
        assert done.returncode == bool(found), done.stderr
        return found

    def send(self, count: int) -> None:
        """Events of a device of the fleet, on a day that is built already."""
        producer = connect(BrokerSettings(), self.home).producer()
        for number in range(self.sent, self.sent + count):
            event = {
                "device_id": self.device,
                "event_ts": f"{self.day}T12:{number // 60:02}:{number % 60:02}.5Z",
                "event_id": f"late-{number}",
                "schema_version": 1,
            }
            producer.produce("telemetry", json.dumps(event), b"k", 0)
        assert producer.flush(10) == 0
        self.sent += count

    def sql(self, *statements: str) -> list[Any]:
        """Statements on the warehouse, as somebody who breaks or inspects it; the last one's rows."""
        with duckdb.connect(str(self.home / "warehouse.duckdb")) as con:
            for statement in statements:
                cursor = con.execute(statement)
            return cursor.fetchall()


@pytest.fixture
def incident(
    demo_state: Any,
    tmp_path: Path,
    petwellness: Callable[..., "subprocess.CompletedProcess[str]"],
    small_fleet_environment: Callable[..., dict[str, str]],
) -> Iterator[Incident]:
    assert demo_state.returncode == 0, demo_state.stdout + demo_state.stderr
    home = tmp_path / "home"
    shutil.copytree(demo_state.home, home)
    one = Incident(home, small_fleet_environment(home), petwellness)
    [(one.device, one.day)] = one.sql(
        "select device_id, strftime(event_date, '%Y-%m-%d') from anl.device_daily_heartbeat"
        " where heartbeat_ratio > 0.9 order by event_date, device_id limit 1"
    )
    with EmbeddedBroker({"telemetry": 2}, home / "broker.json"):
        yield one


COUNTS = (
    "select (select count(*) from raw.telemetry_events), (select count(*) from raw.load_history),"
    " (select count(*) from stg.telemetry_events), (select count(*) from anl.telemetry_events)"
)


@pytest.mark.timeout(600)  # It runs a demo and six commands that load the whole graph.
def test_the_dropout_incident(incident: Incident) -> None:
    assert incident.gaps() == {}
    assert "silent: devices below their expected heartbeat" in incident.succeeds("gaps")
    [before] = incident.sql(COUNTS)

    # A collector dies with its claims made; nobody collects what comes after.
    incident.send(40)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_LANDING, str(incident.home)],
        env=incident.environment,
        check=False,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL
    incident.send(10)

    # Three loads are lost: the ledger of one, the rows of another, both of a third.
    (no_ledger, no_rows, neither) = incident.sql(
        "select stream_id, kafka_partition, start_offset, end_offset, row_count from raw.load_history"
        " where feed = 'telemetry_events' and row_count > 0 order by all limit 3"
    )
    incident.sql(
        *(delete_ledger(place) for place in (no_ledger, neither)),
        *(delete_rows(place) for place in (no_rows, neither)),
    )

    # Find it.
    found = incident.gaps()
    assert {kind: sum(count for _, count in places) for kind, places in found.items()} == {
        "unfinished": 40,
        "waiting": 10,
        "different": no_ledger[4] + (no_rows[3] - no_rows[2]),
        "unloaded": neither[3] - neither[2],
    }
    assert len(found["different"]) == 2
    assert [where for where, _ in found["unloaded"]] == [
        f"{neither[0]} partition {neither[1]} [{neither[2]}, {neither[3]})"
    ]

    # Close it.
    incident.succeeds("collect")
    told = incident.succeeds("reload")
    assert "nothing was changed; add --yes to do it" in told
    assert {*incident.gaps()} == {"different", "unloaded"}
    incident.succeeds("reload", "--yes")
    incident.succeeds("load")
    incident.succeeds("build")

    # Prove it closed.
    assert "no gap is open" in incident.succeeds("gaps")
    [after] = incident.sql(COUNTS)
    assert after[0] == before[0] + 50
    assert after[1] == before[1] + 2, "one range was finished, one was collected"
    assert (after[2], after[3]) == (before[2] + 50, before[3] + 50)
    assert incident.sql(
        "select count(distinct event_id) from anl.telemetry_events where event_id like 'late-%'"
    ) == [(50,)]
    page = PAGE.read_text()
    assert [command for command in incident.used if f"petwellness {command}" not in page] == []


def delete_ledger(place: tuple[Any, ...]) -> str:
    return f"delete from raw.load_history where stream_id = '{place[0]}' and kafka_partition = {place[1]} and start_offset = {place[2]}"


def delete_rows(place: tuple[Any, ...]) -> str:
    return (
        f"delete from raw.telemetry_events where stream_id = '{place[0]}' and kafka_partition = {place[1]}"
        f" and kafka_offset between {place[2]} and {place[3] - 1}"
    )

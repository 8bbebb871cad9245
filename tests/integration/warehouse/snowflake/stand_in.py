"""A landing zone on an S3 server, an emulated database, and a stand-in for Snowpipe between them.

The stand-in does what a pipe does to tables: it takes a notification from the bucket's
queue and runs the pipe's own COPY INTO, as the account's plan has it, for that file,
unless it remembers the file. Its states, its queue and its memory are ours to break.
What a real pipe says of itself (SYSTEM$PIPE_STATUS and the rest) is not shown here.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import boto3
import pyarrow as pa
from snowflake.connector import SnowflakeConnection

from contracts.columns import JSON_COLUMNS, TELEMETRY_SCHEMA
from contracts.records import RECORD_KEYS, records_table
from contracts.registry import FEEDS
from infrastructure.snowflake.account import ENVIRONMENTS
from infrastructure.snowflake.planning import offline_plan
from infrastructure.snowflake_emulator.objects import database_statements
from lake.extract import land_extract
from lake.landing import (
    FILLED_BY_CLAIM,
    Claim,
    Manifest,
    claim_range,
    feed_schema,
    land_range,
    list_manifests,
    utc_now,
)
from lake.quarantine import Span, put_entry, quarantine_entry
from lake.redactions import Arrivals, Redaction, put_redaction
from lake.store import S3Store
from warehouse.duckdb import raw as duckdb_raw
from warehouse.snowflake import raw as snowflake_raw
from warehouse.snowflake.pipes import PAUSED, RUNNING, CopiedFile, PipeStatus
from warehouse.snowflake.session import open_snowflake, run
from warehouse.snowflake.settings import SnowflakeSettings

KEYS = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
START = datetime(2026, 6, 1)
STREAM = "cluster.telemetry.topic1"
PLANNED = '"PROD__PETWELLNESS"'


@cache
def pipe_copy(feed: str) -> str:
    """The COPY INTO of a feed's pipe, as planned for production."""
    for statement in offline_plan(ENVIRONMENTS["prod"]).suggested:
        head, _, copy = statement.partition("\nAS\n")
        if re.match(rf'CREATE PIPE {PLANNED}\."RAW"\."{feed.upper()}"\s', head):
            return copy
    raise LookupError(f"no pipe for {feed}")


def for_one_file(copy: str, database: str, path: str) -> str:
    """A pipe's COPY INTO for a file that a notification names.

    The emulator's differences: it reads a format by FORMAT_NAME only, stages without quotes, and it remembers
    files by table, where a pipe has a memory of its own.
    """
    text = copy.replace(PLANNED, f'"{database}"')
    text = re.sub(r'@"(\w+)"\."(\w+)"\."(\w+)"/(\w+)/', r"@\1.\2.\3/", text)
    text = re.sub(
        r'FILE_FORMAT = "(\w+)"\."(\w+)"\."(\w+)"', r"FILE_FORMAT = (FORMAT_NAME = '\1.\2.\3')", text
    )
    return f"{text}\nFILES = ('{path}')\nFORCE = TRUE"


@dataclass
class StandInPipes:
    """One pipe a feed on a bucket's queue; files are taken in when a test says so, or when a pipe drains."""

    con: SnowflakeConnection
    database: str
    sqs: Any
    queue_url: str
    prefix: str
    states: dict[str, str] = field(default_factory=dict)
    queued: dict[str, list[str]] = field(default_factory=dict)
    memory: dict[str, set[str]] = field(default_factory=dict)
    history: list[CopiedFile] = field(default_factory=list)
    made_at: dict[str, datetime] = field(default_factory=dict)
    # Every pause and resume, in order.
    calls: list[tuple[str, str]] = field(default_factory=list)
    heard_at: datetime | None = None
    # Files that never come out of a pipe's queue.
    is_stuck: bool = False

    def state_of(self, feed: str) -> str:
        return self.states.get(feed, RUNNING)

    def receive(self) -> None:
        """Take notifications from the bucket's queue into the pipes' own, each to the pipe of its feed."""
        while messages := self.sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10).get(
            "Messages", []
        ):
            for message in messages:
                self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
                for record in json.loads(message["Body"]).get("Records", []):
                    key = unquote_plus(record["s3"]["object"]["key"]).removeprefix(self.prefix)
                    if key.startswith("landing/"):
                        self.notify(key)

    def notify(self, key: str) -> None:
        """A notification of one object, be it the first or a repeated one."""
        path = key.removeprefix("landing/")
        self.queued.setdefault(path.partition("/")[0], []).append(path)

    def deliver(self, feed: str, count: int = 10**6) -> int:
        """Let a running pipe take in some of its queue; how many files it loaded."""
        return self._take(feed, count) if self.state_of(feed) == RUNNING else 0

    def _take(self, feed: str, count: int) -> int:
        loaded = 0
        queue = self.queued.get(feed, [])
        while queue and count:
            path, count = queue.pop(0), count - 1
            if path in self.memory.setdefault(feed, set()):
                continue
            error = None
            try:
                run(self.con, for_one_file(pipe_copy(feed), self.database, path))
                loaded += 1
            except Exception as refused:  # a pipe skips a file it cannot load
                error = str(refused)
            self.memory[feed].add(path)
            status = "LOAD_FAILED" if error else "LOADED"
            self.history.append(CopiedFile(feed, path, status, 0, error, feed, utc_now()))
        return loaded

    def recreate(self, feed: str, at: datetime) -> None:
        """Drop and create: the pipe has no memory and no queue."""
        self.memory.pop(feed, None)
        self.queued.pop(feed, None)
        self.made_at[feed] = at

    # What the loader asks of pipes.

    def status(self, feed: str) -> PipeStatus:
        if self.state_of(feed) == PAUSED and not self.is_stuck:
            self._take(feed, 1)  # What was queued before the pause is still taken in.
        return PipeStatus(feed, self.state_of(feed), len(self.queued.get(feed, [])), self.heard_at)

    def pause(self, feed: str) -> None:
        self.calls.append(("pause", feed))
        self.states[feed] = PAUSED

    def resume(self, feed: str) -> None:
        self.calls.append(("resume", feed))
        self.states[feed] = RUNNING

    def created_at(self, feed: str) -> datetime | None:
        return self.made_at.get(feed)

    def copied_since(self, feed: str, since: datetime) -> list[CopiedFile]:
        return [one for one in self.history if one.feed == feed and one.loaded_at >= since]


@dataclass
class Zone:
    """A lake, an emulated database of raw, its pipes, and an embedded warehouse for the same lake."""

    store: S3Store
    settings: SnowflakeSettings
    con: SnowflakeConnection
    pipes: StandInPipes
    embedded: Path
    offset: int = 0

    def land(self, rows: int = 5, rejected: int = 0, device: str = "PW-1", **claimed: Any) -> Manifest:
        """Land the next range of telemetry: an event a minute, then as many malformed messages."""
        start, self.offset = self.offset, self.offset + rows + rejected
        gaps = {"offset_gaps": rejected} if rejected else {}
        claim = Claim(
            **{
                "stream_id": STREAM,
                "partition": 0,
                "start": start,
                "end": self.offset,
                "feed": "telemetry_events",
                "source_system": "petwellness-collar",
                "decoder": "collar-v1@1",
                "claimed_at": START + timedelta(days=4, hours=12),
                "claimed_by": "test",
                **claimed,
            }
        )
        return land_range(self.store, claim_range(self.store, claim), telemetry(start, rows, device), **gaps)

    def land_owners(self, extract_id: str, owners: Sequence[str], complete: bool = True) -> Manifest:
        rows = [
            {
                "owner_id": owner,
                "business_key": owner,
                "op": "snapshot",
                "changed_at": START,
                "consent_flags": '{"analytics":{"at":"2026-05-01T00:00:00Z","value":true}}',
                "payload": "{}",
            }
            for owner in owners
        ]
        assert RECORD_KEYS["owners"] == "owner_id"
        return land_extract(
            self.store,
            source="clinic-crm",
            feed="owners",
            extract_id=extract_id,
            table=records_table("owners", rows),
            complete=complete,
            extracted_at=START,
            claimed_at=START + timedelta(days=4),
        )

    def load(self, manifests: Sequence[Manifest] | None = None, **options: Any) -> Any:
        """One load of everything that landed."""
        known = manifests if manifests is not None else list_manifests(self.store)
        return snowflake_raw.load_pending(self.con, self.store, known, self.pipes, **options)

    def deliver(self, feed: str = "telemetry_events", count: int = 10**6) -> int:
        """Let a pipe take in what the bucket told it of."""
        self.pipes.receive()
        return self.pipes.deliver(feed, count)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return run(self.con, sql)

    def content(self) -> dict[str, list[tuple[Any, ...]]]:
        """Rows of every table that a load writes, in order, without load numbers and times."""
        return {
            name: ordered(name, run(self.con, f"select {columns} from raw.{name}"))
            for name, columns in COMPARED.items()
        }

    def embedded_content(self) -> dict[str, list[tuple[Any, ...]]]:
        """The same of the embedded warehouse, loaded from the same lake."""
        self.embedded.unlink(missing_ok=True)
        with duckdb_raw.open_warehouse(self.embedded, self.store) as con:
            duckdb_raw.load_pending(con, self.store, list_manifests(self.store))
            return {
                name: ordered(name, con.execute(f"select {columns} from raw.{name}").fetchall())
                for name, columns in COMPARED.items()
            }


COMPARED = {
    **{feed: ", ".join(feed_schema(feed).names) for feed in FEEDS},
    "load_history": "stream_id, kafka_partition, start_offset, end_offset, feed, source_file, row_count,"
    " rejected_count, consent_dropped_count, offset_gap_count, event_dates",
    "extracts": "extract_id, feed, source_system, stream_id, complete, row_count, extracted_at, claimed_at, arrival_ts",
    "redacted_ranges": "stream_id, kafka_partition, start_offset, feed, redacted_count, max_arrival_ts,"
    " quarantined_count",
}


def ordered(table: str, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Rows in order, JSON as values: the two engines write it with other blanks."""
    names = COMPARED[table].split(", ")
    parsed = {names.index(name) for name in JSON_COLUMNS | {"event_dates"} if name in names}
    plain = [tuple(as_value(value) if n in parsed else value for n, value in enumerate(row)) for row in rows]
    return sorted(plain, key=repr)


def as_value(value: Any) -> Any:
    if isinstance(value, list):
        return [day.isoformat() for day in value]
    return json.loads(value) if isinstance(value, str) else value


def telemetry(start: int, rows: int, device: str) -> pa.Table:
    """`rows` events of one collar at offsets from `start` on, one a minute, two hours a thousand offsets."""
    moments = [START + timedelta(minutes=start + n) for n in range(rows)]
    values: dict[str, Any] = {
        "kafka_offset": [start + n for n in range(rows)],
        "arrival_ts": [moment + timedelta(seconds=2) for moment in moments],
        "device_id": [device] * rows,
        "event_ts": moments,
        "event_id": [f"e{start + n:06}" for n in range(rows)],
        "step_count": [None if n == 3 else n for n in range(rows)],
        "gps_lat": [Decimal("47.1234567")] * rows,
        "payload": [f'{{"n":{start + n}}}' for n in range(rows)],
    }
    fields = [one for one in TELEMETRY_SCHEMA if one.name not in FILLED_BY_CLAIM]
    arrays = [pa.array(values.get(one.name, [None] * rows), one.type) for one in fields]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def start_over(con: SnowflakeConnection, database: str, landing_url: str) -> None:
    """Make a database as if new, its stages at another landing prefix.

    A database of its own for each test costs dozens of statements, and the emulator is slower with every one it has.
    """
    planned = database_statements(database, landing_url)
    own = {
        f"{found[1]}.{found[2]}".lower()
        for one in planned
        if (found := re.match(rf'CREATE (?:TRANSIENT )?TABLE "{database}"\."(\w+)"\."(\w+)"', one))
    }
    there = {
        name
        for (name,) in run(
            con,
            "select lower(table_schema) || '.' || lower(table_name) as name from information_schema.tables"
            " where table_type = 'BASE TABLE'",
        )
    }
    assert own
    assert own <= there
    for name in there - own:
        run(con, f"drop table {name}")
    counted = " union all ".join(
        f"select '{name}' as name, count(*) as n from {name}" for name in sorted(own)
    )
    for name, count in run(con, counted):
        if count:
            run(con, f"delete from {name}")
    for one in planned:
        if one.startswith("CREATE STAGE "):
            run(con, one.replace("CREATE STAGE", "CREATE OR REPLACE STAGE", 1))


@cache
def client(service: str, endpoint: str) -> Any:
    """A client of the S3 server, which takes longer to make than a request."""
    return boto3.client(service, endpoint_url=endpoint, **KEYS)


@contextmanager
def landing_zone(
    endpoint: str, folder: Path, sign_in_to: Callable[[str], SnowflakeSettings]
) -> Iterator[Zone]:
    """A bucket that notifies a queue, and a database whose stages read it.

    `sign_in_to` makes a database with its stages at a landing prefix, and says how to sign in to it.
    """
    name = f"lake-{uuid.uuid4().hex}"
    s3, sqs = client("s3", endpoint), client("sqs", endpoint)
    s3.create_bucket(Bucket=name)
    queue_url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    s3.put_bucket_notification_configuration(
        Bucket=name,
        NotificationConfiguration={
            "QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]
        },
    )
    store = S3Store(
        name, "pw", endpoint_url=endpoint, region="us-east-1", access_key_id="k", secret_access_key="s"
    )
    settings = sign_in_to(f"s3://{name}/pw/landing/")
    with (
        open_snowflake(settings, {"run": "test", "asset": "raw"}) as con,
        # A pipe is no part of the loader's session.
        open_snowflake(settings, {"run": "test", "asset": "pipe"}) as pipe_con,
    ):
        pipes = StandInPipes(pipe_con, settings.database, sqs, queue_url, "pw/")
        yield Zone(store, settings, con, pipes, folder / "warehouse.duckdb")


def lose(pipes: StandInPipes) -> None:
    """Lose every notification that is on its way."""
    pipes.receive()
    pipes.queued.clear()


def redact(zone: Zone, device: str = "PW-1", owners: tuple[str, ...] = (), number: int = 1) -> None:
    """Everything of a collar that was received in the first hours, and of these owners."""
    at = datetime(2026, 6, 20) + timedelta(hours=number)
    entry = Redaction(
        redaction_id=f"r{number}",
        kind="erasure",
        reason="request",
        requested_at=at,
        deadline=at + timedelta(days=30),
        arrivals=[Arrivals(device, START, START + timedelta(minutes=3, seconds=2))],
        owner_ids=[*owners],
    )
    put_redaction(zone.store, entry)


def quarantine(zone: Zone, *landed: Manifest) -> str:
    """The last row of each of these ranges; returns the entry's id."""
    spans = [Span(m.stream_id, m.partition, m.end - 1, m.end) for m in landed]
    entry = quarantine_entry("why", "ann", datetime(2026, 6, 20), spans)
    put_entry(zone.store, entry)
    return entry.quarantine_id


@dataclass
class DyingSession:
    """A session that dies before its `left`-th statement that writes, or never (0): what it did not commit is undone."""

    con: SnowflakeConnection
    left: int = 0
    sent: int = 0

    def cursor(self) -> _DyingCursor:
        return _DyingCursor(self)

    def about_to_send(self, sql: str) -> None:
        # Nobody can tell a death before a question from one after the statement before it.
        self.sent += not sql.startswith(("select", "with"))
        if self.sent == self.left:
            # A session that ends undoes what it has not committed; the emulator's waits to be told.
            self.con.cursor().execute("rollback")
            self.con.close()
        if 0 < self.left <= self.sent:
            raise KeyboardInterrupt


class _DyingCursor:
    def __init__(self, session: DyingSession) -> None:
        self._session = session
        self._cursor = session.con.cursor()

    def __enter__(self) -> _DyingCursor:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def execute(self, *given: Any) -> Any:
        self._session.about_to_send(given[0])
        return self._cursor.execute(*given)

    def executemany(self, *given: Any) -> Any:
        self._session.about_to_send(given[0])
        return self._cursor.executemany(*given)

    def fetchall(self) -> Any:
        return self._cursor.fetchall()

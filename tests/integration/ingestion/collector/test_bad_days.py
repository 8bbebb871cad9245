"""Bad days: what goes wrong is named with its fix, nothing is lost or landed twice, and the service goes on by itself.

Real parts throughout: a full file system, an S3 server with access control, brokers
that are slow or away. Restarts and growth of topics on Apache Kafka are in `test_kafka`.
"""

import contextlib
import dataclasses
import json
import logging
import os
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from waiting import IN_TIME_S, until

from ingestion.broker.client import BrokerClient, BrokerUnreachableError
from ingestion.broker.embedded import EmbeddedBroker
from ingestion.collector import engine, service
from ingestion.collector.engine import Collector
from ingestion.collector.report import DrainReport, Landed
from ingestion.collector.service import Failure, serve
from ingestion.settings import CollectorSettings
from lake import layout
from lake.landing import list_manifests, utc_now
from lake.store import LocalStore, ObjectStore, S3Store

World = Any  # The class of the fixtures; see conftest.


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start over soon, look for consent snapshots soon."""
    monkeypatch.setattr(service, "FIRST_DELAY_S", 0.05)
    monkeypatch.setattr(service, "LAST_DELAY_S", 0.2)
    monkeypatch.setattr(engine, "CONSENT_REFRESH_S", 0.1)


class Service:
    """The collector's service in a thread."""

    def __init__(
        self, world: World, store: ObjectStore | None, now: Callable[[], datetime], **settings: Any
    ) -> None:
        self.failures: list[Failure] = []
        self.landed: list[Landed] = []
        self.reports: list[DrainReport] = []
        self.left: dict[str, int] | None = None
        self._world, self._store, self._now = world, store or world.store, now
        self._settings = CollectorSettings(**{"rotate_age_s": 0.1} | settings)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.left = serve(self._make, self._stop, self.failures.append)
        except BaseException as error:
            self._error = error

    def _make(self) -> Collector:
        world = self._world
        collector = Collector(
            world.client(),
            self._store,
            self._settings,
            [world.topic],
            now=self._now,
            on_landed=self.landed.append,
        )
        self.reports.append(collector.report)
        return collector

    def until(self, condition: Callable[[], Any], what: str) -> None:
        def seen() -> bool:
            assert self._thread.is_alive(), f"the service ended: {self._error!r}"
            return bool(condition())

        until(seen, what)

    def until_rows(self, rows: int) -> None:
        """Until so many rows are landed."""
        self.until(lambda: sum(m.rows for m in list_manifests(self._store)) >= rows, f"{rows} landed rows")

    def until_failed(self, text: str, times: int = 2) -> None:
        """Until so many attempts failed with a text."""
        self.until(
            lambda: sum(text in str(failure.error) for failure in self.failures) >= times,
            f"failures with '{text}' in {[str(failure.error) for failure in self.failures]}",
        )

    def stop(self) -> dict[str, int]:
        """Stop as SIGTERM does; what is left."""
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "the service does not stop"
        if self._error is not None:
            raise self._error
        assert self.left is not None
        return self.left


@contextlib.contextmanager
def serving(
    world: World, store: ObjectStore | None = None, now: Callable[[], datetime] = utc_now, **settings: Any
) -> Iterator[Service]:
    one = Service(world, store, now, **settings)
    try:
        yield one
    finally:
        one._stop.set()
        one._thread.join(60)


def offsets(rows: pa.Table) -> dict[int, list[int]]:
    """Landed offsets by partition."""
    found: dict[int, list[int]] = {}
    for partition, offset in zip(
        rows["kafka_partition"].to_pylist(), rows["kafka_offset"].to_pylist(), strict=True
    ):
        found.setdefault(partition, []).append(offset)
    return {partition: sorted(seen) for partition, seen in sorted(found.items())}


# The store


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(
            f"a small file system cannot be mounted ({mounted.stderr.strip()}); run the tests as root "
            "or inside `unshare --user --map-root-user --mount`"
        )
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(place: Path, but_for: int) -> Path:
    """A file that leaves so many bytes of a file system."""
    free = os.statvfs(place)
    ballast = place / "ballast"
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        file.write(b"\0" * (free.f_bavail * free.f_frsize - but_for))
    return ballast


@pytest.mark.parametrize("room", [0, 2 * 4096], ids=["no room", "room for claims only"])
@pytest.mark.only_on("embedded", "the store fails, not the broker")
def test_a_full_disk(bare_world: World, small_disk: Path, room: int) -> None:
    bare_world.store = LocalStore(small_disk / "lake")
    bare_world.opt_out()
    # Content that does not compress, so that a range's file needs more room than a claim.
    long = [bare_world.event(n, noise=os.urandom(2_000).hex()) for n in range(20)]
    with serving(bare_world) as one:
        bare_world.send(long[:1])
        one.until_rows(1)
        ballast = fill(small_disk, room)
        bare_world.send(long, first=1)
        one.until_failed(f"{small_disk / 'lake'} cannot be used (No space left on device); free space there")
        assert len(list_manifests(bare_world.store)) == 1
        ballast.unlink()
        one.until_rows(21)
        assert one.stop() == {}
    assert offsets(bare_world.landed()) == {0: [*range(21)]}


@pytest.fixture
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    urllib.request.urlopen(f"{endpoint}/moto-api/reset", data=b"").close()
    yield endpoint
    check_access(endpoint, False)
    server.stop()


def check_access(endpoint: str, on: bool) -> None:
    """Have the server check who asks, or let everybody in."""
    plain = {"Content-Type": "text/plain"}
    urllib.request.urlopen(
        urllib.request.Request(f"{endpoint}/moto-api/reset-auth", b"0" if on else b"inf", plain)
    ).close()


def api(endpoint: str, name: str) -> Any:
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    return boto3.client(name, endpoint_url=endpoint, **keys)


def take_away(bucket: str) -> Callable[[], None]:
    """Let a bucket vanish from the server with all it holds; what brings it back."""
    buckets, accounts = s3_backends["123456789012"]["aws"].buckets, s3_backends.bucket_accounts
    content, account = buckets.pop(bucket), accounts.pop(bucket)

    def restore() -> None:
        buckets[bucket], accounts[bucket] = content, account

    return restore


def on_s3(world: World, endpoint: str, key: str = "k", secret: str = "s") -> None:
    """Put the world's lake into a new bucket, with a consent snapshot."""
    api(endpoint, "s3").create_bucket(Bucket="lake")
    world.store = S3Store(
        "lake", "telemetry", endpoint_url=endpoint, access_key_id=key, secret_access_key=secret
    )
    world.opt_out()


@pytest.mark.only_on("embedded", "the store fails, not the broker")
def test_a_bucket_that_vanishes_and_comes_back(bare_world: World, moto: str) -> None:
    on_s3(bare_world, moto)
    with serving(bare_world) as one:
        bare_world.send(map(bare_world.event, range(3)))
        one.until_rows(3)
        restore = take_away("lake")
        bare_world.send(map(bare_world.event, range(3, 6)), first=3)
        one.until_failed("there is no bucket 'lake'; create it or change PETWELLNESS_LAKE_URL")
        restore()
        one.until_rows(6)
        assert one.stop() == {}
    assert offsets(bare_world.landed()) == {0: [*range(6)]}


@pytest.mark.only_on("embedded", "the store fails, not the broker")
def test_a_bucket_that_comes_back_empty_gets_what_the_log_still_holds(bare_world: World, moto: str) -> None:
    on_s3(bare_world, moto)
    with serving(bare_world) as one:
        bare_world.send(map(bare_world.event, range(3)))
        one.until_rows(3)
        take_away("lake")
        bare_world.send(map(bare_world.event, range(3, 6)), first=3)
        one.until_failed("there is no bucket 'lake'")
        api(moto, "s3").create_bucket(Bucket="lake")
        one.until_failed("there is no consent snapshot")
        bare_world.opt_out()
        one.until_rows(6)
        one.stop()
    assert offsets(bare_world.landed()) == {0: [*range(6)]}


ALLOWED = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


@pytest.mark.only_on("embedded", "the store fails, not the broker")
def test_credentials_that_are_revoked_and_restored(bare_world: World, moto: str) -> None:
    iam = api(moto, "iam")
    iam.create_user(UserName="collector")
    key = iam.create_access_key(UserName="collector")["AccessKey"]
    on_s3(bare_world, moto, key["AccessKeyId"], key["SecretAccessKey"])

    def allow(is_allowed: bool) -> None:
        check_access(moto, False)
        if is_allowed:
            iam.put_user_policy(UserName="collector", PolicyName="lake", PolicyDocument=json.dumps(ALLOWED))
        else:
            iam.delete_user_policy(UserName="collector", PolicyName="lake")
        check_access(moto, True)

    allow(True)
    with serving(bare_world) as one:
        bare_world.send(map(bare_world.event, range(3)))
        one.until_rows(3)
        allow(False)
        bare_world.send(map(bare_world.event, range(3, 6)), first=3)
        one.until(lambda: len(one.failures) >= 2, "failures")
        for failure in one.failures:
            assert "refused the request" in str(failure.error)
            assert "check PETWELLNESS_LAKE_ACCESS_KEY_ID and PETWELLNESS_LAKE_SECRET_ACCESS_KEY" in str(
                failure.error
            )
            assert key["SecretAccessKey"] not in str(failure.error)
        allow(True)
        one.until_rows(6)
        assert one.stop() == {}
        check_access(moto, False)
    assert offsets(bare_world.landed()) == {0: [*range(6)]}


class SlowStore(LocalStore):
    """Files take until they are let through; claims are as fast as ever."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.open = threading.Event()

    def put_new(self, key: str, data: bytes) -> None:
        if key.startswith(layout.LANDING):
            self.open.wait()
        super().put_new(key, data)


@pytest.fixture
def slow(world: World) -> Iterator[SlowStore]:
    store = SlowStore(world.home / "lake")
    yield store
    store.open.set()


def test_a_slow_store_pauses_partitions_and_bounds_memory(
    world: World, slow: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CONSUME_MESSAGES", 50)
    monkeypatch.setattr(engine, "PATIENCE_S", 0.1)
    held: list[int] = []
    joined: list[int] = []
    hold_back, assign = Collector._hold_back, Collector._on_assign

    def measured(self: Collector, consumer: Any) -> None:
        held.append(self._held_bytes())
        hold_back(self, consumer)

    def assigned(self: Collector, consumer: Any, places: Any) -> None:
        joined.extend(place.partition for place in places)
        assign(self, consumer, places)

    monkeypatch.setattr(Collector, "_hold_back", measured)
    monkeypatch.setattr(Collector, "_on_assign", assigned)
    limit = 50_000
    with serving(world, slow, max_held_bytes=limit, rotate_rows=100) as one:
        for partition in range(world.partitions):
            world.send(map(world.event, range(1_000)), partition)
        one.until(lambda: one.reports[-1].pauses, "a pause")
        rounds = len(held)
        # Many more rounds without another message: the partitions are paused and the group is served.
        one.until(lambda: len(held) > rounds + 30, "rounds of a paused collector")
        assert len({*held[rounds + 1 : rounds + 30]}) == 1
        assert max(held) <= limit + 50 * 200
        assert one.landed == []
        slow.open.set()
        one.until_rows(2_000)
        one.stop()
    assert one.failures == []
    assert sorted(joined) == [0, 1], "every partition was assigned once: the member stayed in its group"
    assert offsets(world.landed()) == {0: [*range(1_000)], 1: [*range(1_000)]}


@pytest.mark.only_on("kafka", "the embedded broker's groups have no heartbeats to miss")
def test_a_store_slower_than_the_session_keeps_the_member_in_its_group(world: World, slow: SlowStore) -> None:
    session_s = 6.0
    client = world.client()
    patient = client.settings.model_copy(update={"session_timeout_s": session_s})
    client = dataclasses.replace(client, settings=patient)
    stop, reports = threading.Event(), []
    collector = Collector(client, slow, CollectorSettings(rotate_age_s=0.1), [world.topic])
    thread = threading.Thread(target=lambda: reports.append(collector.run_forever(stop)))
    thread.start()
    try:
        world.send(map(world.event, range(10)))
        until(lambda: collector.report.rotations_by_reason["age"], "a claimed range")
        [member] = member_ids(world)
        time.sleep(session_s + 1)  # What has to be outlived is the broker's own time.
        assert member_ids(world) == [member]
        slow.open.set()
        until(lambda: collector.report.rows == 10, "landed rows")
    finally:
        slow.open.set()
        stop.set()
        thread.join(60)
    assert offsets(world.landed()) == {0: [*range(10)]}


def member_ids(world: World) -> list[str]:
    [group] = world.broker.admin().describe_consumer_groups([world.group_id]).values()
    return [member.member_id for member in group.result().members]


def test_a_stop_while_the_store_hangs_ends_in_time_and_says_what_is_left(
    world: World, slow: SlowStore
) -> None:
    with serving(world, slow, stop_timeout_s=0.5) as one:
        world.send(map(world.event, range(7)))
        one.until(lambda: one.reports[-1].rotations_by_reason["age"], "a claimed range")
        started = time.monotonic()
        left = one.stop()
        assert time.monotonic() - started < IN_TIME_S
    assert left == {f"{world.topic}[0]": 7}
    [failure] = one.failures
    assert failure.retry_in_s is None
    assert "PETWELLNESS_COLLECTOR_STOP_TIMEOUT_S" in str(failure.error)
    # The thread that hangs wakes up as a zombie beside the next start.
    slow.open.set()
    world.collector().drain()
    assert offsets(world.landed()) == {0: [*range(7)]}


# The broker


@pytest.mark.only_on("embedded", "delays are injected into the mock cluster; a frozen Kafka is in test_kafka")
def test_a_broker_that_answers_slowly(world: World) -> None:
    with serving(world) as one:
        world.send(map(world.event, range(3)))
        one.until_rows(3)
        world.broker.set_round_trip_ms(700)
        # To connect takes several of its answers.
        world.send(map(world.event, range(3, 6)), first=3, connect_timeout_s=30)
        one.until_rows(6)
        assert one.failures == []
        world.broker.set_round_trip_ms(0)
        one.stop()
    assert offsets(world.landed()) == {0: [*range(6)]}


@pytest.mark.only_on("embedded", "delays are injected into the mock cluster; a frozen Kafka is in test_kafka")
@pytest.mark.parametrize("slow_from", ["the start", "joining"])
def test_a_broker_that_answers_too_slowly_to_join_is_named_and_joined_later(
    world: World, slow_from: str
) -> None:
    class Joining(BrokerClient):
        def consumer(self, **overrides: Any) -> Any:
            made = super().consumer(**overrides)
            world.broker.set_round_trip_ms(1_500)
            return made

    world.send(map(world.event, range(3)))
    client = Joining(**vars(world.client(connect_timeout_s=0.5)))
    if slow_from == "the start":
        world.broker.set_round_trip_ms(1_500)
    with pytest.raises(BrokerUnreachableError, match="PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS"):
        world.collector(client=client).drain(until=lambda: False)
    world.broker.set_round_trip_ms(0)
    with serving(world) as one:
        one.until_rows(3)
        one.stop()
    assert offsets(world.landed()) == {0: [0, 1, 2]}


@pytest.mark.only_on("embedded", "Kafka's own restart is in test_kafka")
def test_a_broker_that_goes_away_and_comes_back(world: World) -> None:
    with serving(world) as one:
        world.send(map(world.event, range(3)))
        one.until_rows(3)
        world.broker.set_down(True)
        one.until_failed("PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS")
        world.broker.set_down(False)
        world.send(map(world.event, range(3, 6)), first=3)
        one.until_rows(6)
        assert one.stop() == {}
    assert offsets(world.landed()) == {0: [*range(6)]}


@pytest.mark.only_on("embedded", "its streams end with it")
def test_an_embedded_broker_that_is_started_again_is_followed(world: World) -> None:
    with serving(world) as one:
        world.send(map(world.event, range(3)))
        one.until_rows(3)
        world.broker.stop()
        one.until(lambda: one.failures, "a failure")
        with EmbeddedBroker({world.topic: world.partitions}, world.home / "broker.json"):
            world.send(map(world.event, range(2)))
            one.until_rows(5)
            one.stop()
    rows = world.landed()
    assert rows.num_rows == 5
    assert len({*rows["stream_id"].to_pylist()}) == 2


def test_a_kafka_that_is_stopped_and_started_is_waited_for(kafka_world: World) -> None:
    world = kafka_world
    with serving(world) as one:
        world.send(map(world.event, range(3)))
        one.until_rows(3)
        world.broker.stop()
        one.until_failed("PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS", times=1)
        world.broker.start()
        world.send(map(world.event, range(3, 6)), first=3)
        one.until_rows(6)
        one.stop()
    assert offsets(world.landed()) == {0: [*range(6)]}


def test_a_log_that_starts_later_than_the_last_claim(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.send(map(world.event, range(3)))
    world.collector().drain()
    world.send(map(world.event, range(3, 6)), first=3)
    world.send(map(world.event, range(6, 9)), first=6)
    world.delete_records(6)
    with caplog.at_level(logging.WARNING, "ingestion"), serving(world) as one:
        one.until_rows(6)
        one.stop()
    assert [record.getMessage() for record in caplog.records] == [
        f"{world.topic}[0]: offsets 3 to 6 are gone: the log starts at 6"
    ]
    assert one.reports[-1].gap_claims == 1
    gap = one.landed[0]
    assert (gap.reason, gap.manifest.gap_reason) == ("gap", "the log starts at 6")
    assert (gap.manifest.start, gap.manifest.end, gap.manifest.offset_gaps) == (3, 6, 3)
    assert offsets(world.landed()) == {0: [0, 1, 2, 6, 7, 8]}


# Clocks and consent


class Clock:
    """A wall clock that jumps."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.ahead


def test_a_clock_that_jumps_decides_folders_and_nothing_else(world: World) -> None:
    clock = Clock()
    world.opt_out(built_at=utc_now() - timedelta(days=2), name="t")
    with serving(world, now=clock, consent_max_age_s=10 * 86_400) as one:
        for number, days in enumerate((0, -1, 1, 0)):
            clock.ahead = timedelta(days=days)
            world.send(map(world.event, range(3 * number, 3 * number + 3)), first=3 * number)
            one.until_rows(3 * number + 3)
        assert one.stop() == {}
    assert one.failures == []
    assert offsets(world.landed()) == {0: [*range(12)]}
    today = utc_now().date()
    by_start = sorted(list_manifests(world.store), key=lambda m: m.start)
    days_of_files = [m.source_file.split("date=")[1][:10] for m in by_start]
    assert {*days_of_files} >= {str(today + timedelta(days=days)) for days in (-1, 1)}
    # Latency and age are told by another clock: nobody waited for a day.
    assert max(landed.latency_max_s for landed in one.landed) < 60


def test_a_clock_that_is_behind_rejects_what_it_cannot_believe_and_goes_on(world: World) -> None:
    """Messages of hours to come are rejects, which a replay lands; those after the clock is set are rows."""
    clock = Clock()
    world.opt_out(built_at=world.start - timedelta(days=1), name="t")
    settings = CollectorSettings(consent_max_age_s=10_000 * 86_400)
    for first, ahead in ((0, world.start - timedelta(hours=2) - utc_now()), (3, timedelta())):
        clock.ahead = ahead
        world.send(map(world.event, range(first, first + 3)), first=first)
        Collector(world.client(), world.store, settings, [world.topic], now=clock).drain()
    by_start = sorted(list_manifests(world.store), key=lambda m: m.start)
    assert [m.rejected_by_reason for m in by_start] == [{"clock": 3}, {}]
    assert offsets(world.landed()) == {0: [3, 4, 5]}


def test_a_clock_behind_the_consent_snapshot_is_named(world: World) -> None:
    clock = Clock()
    with serving(world, now=clock) as one:
        world.send(map(world.event, range(3)))
        one.until_rows(3)
        clock.ahead = -timedelta(days=1)
        world.send(map(world.event, range(3, 6)), first=3)
        one.until_failed("set the clock of this machine")
        clock.ahead = timedelta()
        one.until_rows(6)
        one.stop()
    assert offsets(world.landed()) == {0: [*range(6)]}


def test_a_clock_that_makes_the_consent_snapshot_look_old_is_named(world: World) -> None:
    clock = Clock()
    with serving(world, now=clock) as one:
        world.send(map(world.event, range(3)))
        one.until_rows(3)
        clock.ahead = timedelta(days=2)
        world.send(map(world.event, range(3, 6)), first=3)
        one.until_failed("or set the clock of this machine")
        clock.ahead = timedelta()
        one.until_rows(6)
        one.stop()
    assert offsets(world.landed()) == {0: [*range(6)]}


def test_a_missing_and_then_a_stale_consent_snapshot(bare_world: World) -> None:
    bare_world.send(map(bare_world.event, range(3)))
    with serving(bare_world, consent_max_age_s=3600) as one:
        one.until_failed("there is no consent snapshot")
        bare_world.opt_out(built_at=utc_now() - timedelta(hours=2), name="a")
        one.until_failed("s old, 3600 s are allowed (PETWELLNESS_COLLECTOR_CONSENT_MAX_AGE_S)")
        assert list_manifests(bare_world.store) == []
        bare_world.opt_out(name="b")
        one.until_rows(3)
        one.stop()
    assert offsets(bare_world.landed()) == {0: [0, 1, 2]}
    assert {m.consent_snapshot_id for m in list_manifests(bare_world.store)} == {"b"}


# Messages


def test_a_poisoned_message_larger_than_allowed_stops_nobody(world: World) -> None:
    """Larger than a message may be, and larger than all that may be held at once."""
    poison = b'{"device_id":"collar-1","x":"' + b"x" * 900_000 + b'"}'
    with serving(world, max_held_bytes=100_000) as one:
        world.send([world.event(0), poison, world.event(2)])
        one.until_rows(2)
        one.stop()
    assert one.failures == []
    assert offsets(world.landed()) == {0: [0, 2]}
    rejects = [m.reject_object for m in list_manifests(world.store) if m.reject_object]
    [dead] = [pq.read_table(pa.BufferReader(world.store.get(key))) for key in rejects]
    assert dead["reason"].to_pylist() == ["oversized"]
    assert dead["kafka_offset"].to_pylist() == [1]

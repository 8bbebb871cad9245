"""One scenario from start to verdict: broker, bucket, proxies, workers, traffic, and the check at the end."""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verification.chaos.brokers import TOPIC, Broker, OpenBroker
from verification.chaos.faults import Fault, FaultPlan
from verification.chaos.fleet import FleetError, Workers
from verification.chaos.kafka_proxy import KafkaProxy
from verification.chaos.s3_proxy import S3Proxy
from verification.chaos.traffic import OPTED_OUT, Ledger, Traffic
from verification.chaos.verify import Findings, list_bucket, main_ends, read_bucket, unfinished, verify
from verification.chaos.worker import STARTED_OVER, WorkerSpec

PARTITIONS = 4
USUAL_RATE = 3_000
ROTATE_ROWS = 300
ROTATE_AGE_S = 0.4
POLL_S = 0.05
# Session of a consumer that joins the workers' group for a moment.
GUEST_SESSION_S = 3.0
# How long nothing may land before a scenario is given up. A busy machine is slow, not wrong.
STALL_TIMEOUT_S = 90.0
BROKEN_STALL_TIMEOUT_S = 20.0


class StageError(Exception):
    """A scenario did not come to where its outcome can be judged."""


@dataclass(frozen=True)
class Scenario:
    """What happens. `shared_group` None: a group each on the embedded broker, one group on Kafka.

    `script` runs while workers collect; `expected_hits` are what it counts in `stage.hits`.
    Faults wait for the first claim, unless it is what they are for (`armed_from_start`).
    """

    name: str
    title: str
    faults: tuple[Callable[[], Fault], ...] = ()
    script: "Callable[[Stage], None] | None" = None
    expected_hits: dict[str, int] = field(default_factory=dict)
    workers: int = 3
    rate: int = 3_000
    shared_group: bool | None = None
    static_members: bool = False
    session_timeout_s: float = 3.0
    conflict_status: int | None = None
    broken: str | None = None
    transactional: bool = False
    kafka_only: bool = False
    armed_from_start: bool = False


@dataclass
class Outcome:
    """What a scenario showed.

    It passed when every kill point was hit and the lake is exact; a collector that is
    broken on purpose when its damage was seen.
    """

    scenario: str
    title: str
    broker: str
    store: str
    grouping: str
    workers: int
    seed: int
    kill_points: dict[str, int]
    expected_hits: dict[str, int]
    findings: Findings
    seconds: float
    exits: dict[str, int]
    started_over: int
    landed_by: dict[str, int]
    puts_that_found_the_key_taken: int
    zombies_heard_again: int
    broken: str | None
    problems: list[str]
    error: str | None = None

    @property
    def not_hit(self) -> list[str]:
        return [name for name, times in self.expected_hits.items() if self.kill_points.get(name, 0) < times]

    @property
    def damaged(self) -> bool:
        """Whether records were found missing or more than once."""
        return self.findings.missing > 0 or self.findings.duplicated > 0

    @property
    def passed(self) -> bool:
        if self.broken is not None:
            return self.damaged
        return self.error is None and not self.not_hit and self.findings.exact and self.findings.produced > 0


@dataclass(frozen=True)
class S3Server:
    """The S3 test server behind the proxies."""

    port: int
    name = "moto (S3 protocol over HTTP, behind the fault proxy)"

    def client(self) -> Any:
        """A client that reaches it directly."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id="chaos",
            aws_secret_access_key="chaos",  # noqa: S106
            config=Config(s3={"addressing_style": "path"}, max_pool_connections=16),
        )


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run the S3 test server in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "verification.chaos.s3_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise StageError("the S3 test server did not start; is moto[server] installed? (`make install`)")
        yield S3Server(int(line))
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()


@dataclass
class Stage:
    """A running scenario, as its script sees it."""

    scenario: "Scenario"
    broker: OpenBroker
    server: S3Server
    bucket: str
    folder: Path
    plan: FaultPlan
    workers: Workers
    traffic: Traffic
    s3_proxy: S3Proxy
    kafka_proxy: KafkaProxy
    loop: asyncio.AbstractEventLoop
    grouped: bool
    messages: int
    hits: Counter[str] = field(default_factory=Counter)
    # Streams that ended in the middle: what was claimed and not landed is gone with them.
    dead_streams: set[str] = field(default_factory=set)
    log_ends: dict[tuple[str, int], int] = field(default_factory=dict)
    _looked_at: int = -1

    @property
    def ledger(self) -> Ledger:
        return self.traffic.ledger

    @property
    def group_id(self) -> str:
        return f"group-{self.bucket}"

    def add_worker(self, name: str) -> None:
        """Start a worker behind ports of its own."""
        s3_port = self._on_loop(self.s3_proxy.listen(name))
        kafka_port = self._on_loop(self.kafka_proxy.listen(name))
        home = self.folder / name
        bootstrap = self.broker.worker_home(home, kafka_port)
        self.workers.add(
            WorkerSpec(
                name=name,
                home=home,
                log_path=home / "worker.log",
                bucket=self.bucket,
                s3_port=s3_port,
                topic=TOPIC,
                bootstrap_servers=bootstrap,
                group_id=self.group_id if self.grouped else None,
                static_member=self.scenario.static_members,
                session_timeout_s=self.scenario.session_timeout_s,
                rotate_rows=ROTATE_ROWS,
                rotate_age_s=ROTATE_AGE_S,
                broken=self.scenario.broken,
            )
        )

    def wait_until(self, reached: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Poll a condition, for as long as things land and `timeout_s` beyond (at most four times that).

        Raises StageError naming `what` was waited for, and errors of traffic and fleet.
        """
        landed, moved, started = -1, 0.0, time.monotonic()
        while not reached():
            if len(self.plan.created) != landed:
                landed, moved = len(self.plan.created), time.monotonic()
            if self.traffic.errors:
                raise StageError(self.traffic.errors[0])
            if self.workers.hopeless:
                raise StageError(f"workers gave up {self.workers.ends['failed']} times; see {self.folder}")
            if time.monotonic() - moved > timeout_s:
                raise StageError(f"nothing landed for {timeout_s:.0f} s, waiting in vain until {what}")
            if time.monotonic() - started > 4 * timeout_s:
                raise StageError(f"waited {4 * timeout_s:.0f} s in vain until {what}")
            time.sleep(POLL_S)

    def landed_more(self, since: float, by: str | None = None) -> bool:
        """Whether a manifest was written after a moment, by a certain worker if given."""
        return any(
            moment > since and step == "put manifest" and (by is None or worker == by)
            for worker, step, _, moment in [*self.plan.created[-200:]]
        )

    def wait_for_landing(self, timeout_s: float = 90.0, by: str | None = None) -> None:
        """Wait until something more lands."""
        since = time.monotonic()
        self.wait_until(lambda: self.landed_more(since, by), timeout_s, f"{by or 'a worker'} lands a range")

    def all_landed(self) -> bool:
        """Whether every claim is finished and claims reach the end of every partition's records."""
        if len(self.plan.created) == self._looked_at:
            return False
        looked_at = len(self.plan.created)
        keys = list_bucket(self.server.client(), self.bucket)
        ends = main_ends(keys)
        reached = all(ends.get(place, 0) > max(records, default=-1) for place, records in self.ledger.items())
        if not reached or any(place[0] not in self.dead_streams for place in unfinished(keys)):
            # Looking costs the store's time; the next look is due when something more was put.
            self._looked_at = looked_at
            return False
        return True

    def landed_end(self, partition: int) -> int:
        """End of a partition's last main object, 0 without any."""
        keys = list_bucket(self.server.client(), self.bucket, "landing/")
        return main_ends(keys).get((self.broker.stream_id, partition), 0)

    @contextlib.contextmanager
    def group_consumer(self) -> Iterator[Any]:
        """A consumer of the workers' group that reaches the broker directly."""
        consumer = self.broker.client.consumer(
            **{
                "group.id": self.group_id,
                "session.timeout.ms": round(GUEST_SESSION_S * 1000),
                "heartbeat.interval.ms": 500,
            }
        )
        try:
            yield consumer
        finally:
            joined = bool(consumer.memberid())
            consumer.close()
            if joined and self.broker.embedded:
                # It keeps a member that left until its session is over, and gets stuck on joins before that.
                time.sleep(GUEST_SESSION_S + 0.5)

    def go_on_with_new_topic(self) -> None:
        """Recreate the topic and produce into the new stream; the ledger keeps what landed of the old one."""
        old = self.broker.stream_id
        self.dead_streams.add(old)
        self.broker.recreate_topic()
        landed = main_ends(list_bucket(self.server.client(), self.bucket, "landing/"))
        for partition in range(self.broker.partitions):
            records = self.ledger[old, partition]
            for offset in [one for one in records if one >= landed.get((old, partition), 0)]:
                del records[offset]
        self.traffic.ends.clear()
        self.traffic = _traffic(
            self.scenario,
            self.broker,
            self.ledger,
            self.traffic.ends,
            self.traffic.seed + 1000,
            self.messages,
        )
        self.traffic.start()

    def places(self, offset: int | None = None, metadata: str | None = None) -> list[Any]:
        """Every partition of the topic, with an offset and its metadata to commit."""
        from confluent_kafka import TopicPartition

        if offset is None:
            return [TopicPartition(TOPIC, partition) for partition in range(self.broker.partitions)]
        return [
            TopicPartition(TOPIC, partition, offset, metadata=metadata)
            for partition in range(self.broker.partitions)
        ]

    def restart_workers(self) -> None:
        """Start every worker that was crashed or removed again."""
        for name in [name for name, slot in self.workers.slots.items() if not slot.wanted]:
            self.add_worker(name)

    def _on_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)


def run_scenario(
    scenario: "Scenario",
    broker: Broker,
    server: S3Server,
    folder: Path,
    *,
    seed: int,
    messages: int,
) -> Outcome:
    """Run one scenario; its logs stay in `folder`. What goes wrong is in the outcome, not raised."""
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*/worker.log"):
        log.unlink()
    bucket = f"{'e' if broker.embedded else 'k'}-{scenario.name}-{seed}"
    faults = [make() for make in scenario.faults]
    grouped = scenario.shared_group if scenario.shared_group is not None else not broker.embedded
    workers = Workers()
    plan = FaultPlan(faults, workers, seed)
    hits: Counter[str] = Counter()
    findings, error = Findings(), None
    try:
        with (
            broker.open(folder, PARTITIONS) as opened,
            workers,
            _stage(scenario, opened, server, bucket, folder, plan, workers, grouped, seed, messages) as stage,
        ):
            hits = stage.hits
            error = _play(stage)
            findings = verify(
                read_bucket(server.client(), bucket), stage.ledger, stage.log_ends, stage.dead_streams
            )
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}"
    hits.update({fault.name: fault.hits for fault in faults})
    expected = {fault.name: fault.times for fault in faults} | scenario.expected_hits
    return Outcome(
        scenario=scenario.name,
        title=scenario.title,
        broker=broker.name,
        store=server.name,
        grouping="one group" if grouped else "a group each, every range contested",
        workers=scenario.workers,
        seed=seed,
        kill_points=dict(hits),
        expected_hits=expected,
        findings=findings,
        seconds=round(time.monotonic() - started, 1),
        exits=dict(workers.ends),
        started_over=sum(log.read_text().count(STARTED_OVER) for log in folder.glob("*/worker.log")),
        landed_by=plan.landed_by(),
        puts_that_found_the_key_taken=plan.taken_keys.total(),
        zombies_heard_again=plan.zombies.total(),
        broken=scenario.broken,
        problems=plan.problems[:10],
        error=error,
    )


def _play(stage: Stage) -> str | None:
    """Produce and collect under faults until all of them fired, then let everything come to rest.

    What did not come about is told, not raised: the lake is judged all the same.
    """
    scenario, plan = stage.scenario, stage.plan
    for number in range(scenario.workers):
        stage.add_worker(f"worker-{number + 1}")
    plan.armed = scenario.armed_from_start
    stage.traffic.start()
    if not plan.armed:
        stage.wait_until(lambda: bool(plan.created), STALL_TIMEOUT_S, "a first range is claimed")
        plan.armed = True
    told: list[str] = []
    try:
        if scenario.script is not None:
            scenario.script(stage)
        stage.wait_until(
            lambda: plan.exhausted and stage.traffic.count_reached, STALL_TIMEOUT_S, "every fault fired"
        )
    except StageError as error:
        told.append(str(error))
    plan.armed = False
    stage.traffic.finish(120)
    stage.log_ends.update(stage.broker.log_ends())
    # A collector that is broken on purpose may never come to rest.
    timeout_s = STALL_TIMEOUT_S if scenario.broken is None else BROKEN_STALL_TIMEOUT_S
    try:
        stage.wait_until(stage.all_landed, timeout_s, "everything that was produced is landed")
    except StageError as error:
        told.append(str(error))
    try:
        stage.workers.stop_all()
    except FleetError as error:
        told.append(str(error))
    return "; ".join(told) or None


def _traffic(
    scenario: "Scenario",
    broker: OpenBroker,
    ledger: Ledger,
    ends: dict[int, int],
    seed: int,
    messages: int,
) -> Traffic:
    options = {"transactional.id": "chaos"} if scenario.transactional else {}
    return Traffic(
        producer=broker.client.producer(**options),
        topic=TOPIC,
        partitions=broker.partitions,
        seed=seed,
        # As many seconds of production as at the usual rate.
        count=messages * scenario.rate // USUAL_RATE,
        rate=scenario.rate,
        ledger=ledger,
        stream_id=broker.stream_id,
        bounded=broker.embedded,
        ends=ends,
        transactional=scenario.transactional,
    )


@contextlib.contextmanager
def _stage(
    scenario: "Scenario",
    broker: OpenBroker,
    server: S3Server,
    bucket: str,
    folder: Path,
    plan: FaultPlan,
    workers: Workers,
    grouped: bool,
    seed: int,
    messages: int,
) -> Iterator[Stage]:
    client = server.client()
    client.create_bucket(Bucket=bucket)
    _put_consent(client, bucket)
    ledger: Ledger = {}
    ends: dict[int, int] = {}
    traffic = _traffic(scenario, broker, ledger, ends, seed, messages)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="proxies", daemon=True)
    thread.start()
    s3_proxy = S3Proxy(
        ("127.0.0.1", server.port),
        bucket,
        plan,
        lambda partition: ends.get(partition, 0),
        scenario.conflict_status,
    )
    kafka_proxy = KafkaProxy(broker.port, plan)
    try:
        stage = Stage(
            scenario,
            broker,
            server,
            bucket,
            folder,
            plan,
            workers,
            traffic,
            s3_proxy,
            kafka_proxy,
            loop,
            grouped,
            messages,
        )
        yield stage
    finally:
        stage.traffic.abandon()
        loop.call_soon_threadsafe(s3_proxy.close)
        loop.call_soon_threadsafe(kafka_proxy.close)
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _put_consent(client: Any, bucket: str) -> None:
    import msgspec

    from ingestion.collector.consent import ConsentSnapshot, OptOut
    from lake import layout
    from lake.landing import utc_now

    moment = utc_now()
    opted_out = [OptOut(device, moment.replace(year=moment.year - 1), None) for device in OPTED_OUT]
    snapshot = ConsentSnapshot("chaos", moment, opted_out)
    client.put_object(Bucket=bucket, Key=layout.consent_key("chaos"), Body=msgspec.json.encode(snapshot))

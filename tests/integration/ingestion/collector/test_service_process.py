"""`petwellness collect --forever` as a process: its log, its metrics, how it ends."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from waiting import IGNORING_SIGINT, IN_TIME_S, end, until

from lake.landing import list_manifests
from lake.store import S3Store

World = Any  # The class of the fixtures; see conftest.

CLI = (sys.executable, "-m", "petwellness_orchestration.cli")
KEYS = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A service as a process; its lines go to a file."""

    def __init__(self, world: World, *arguments: str, **settings: str) -> None:
        self._out = world.home / f"service-{time.monotonic_ns()}.log"
        self._err = self._out.with_suffix(".err")
        environment = os.environ | {
            "PETWELLNESS_HOME": str(world.home),
            "PETWELLNESS_COLLECTOR_ROTATE_AGE_S": "0.2",
            **settings,
        }
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*IGNORING_SIGINT, *CLI, "collect", "--forever", *arguments],
                env=environment,
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
            )

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Its log so far; every line has to be an object."""
        found = [json.loads(line) for line in self._out.read_text().splitlines()]
        return [line for line in found if event in (None, line["event"])]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it; its exit code."""
        return end(self.process, number)

    def errors(self) -> str:
        return self._err.read_text()


@contextlib.contextmanager
def process(world: World, *arguments: str, **settings: str) -> Iterator[Process]:
    one = Process(world, *arguments, **settings)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def scraped(port: int) -> dict[tuple[str, str], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        (sample.name, ",".join(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.only_on("embedded", "the process is the same on both")
def test_it_logs_each_file_counts_and_ends_clean(world: World) -> None:
    port = free_port()
    with process(world, "--metrics-port", str(port)) as one:
        world.send([world.event(0), b"bad", world.event(2, note="Rex of Anna Muster")])
        [landed] = until(lambda: one.lines("file_landed"), "a landed file")
        found = until(
            lambda: (s := scraped(port))["petwellness_collector_landed_files_total", ""] and s, "the count"
        )
        world.send([world.event(3)], first=3)
        assert one.end() == 0
        assert one.errors() == ""
    assert found["petwellness_collector_landed_rows_total", ""] == 2
    assert found["petwellness_collector_consumed_messages_total", ""] == 3
    assert found["petwellness_collector_rejects_total", "collar-v1@1,malformed,petwellness-collar"] == 1
    assert found["petwellness_collector_receipt_to_file_seconds_count", ""] == 3
    assert ("petwellness_collector_lag_messages", "0,telemetry") in found
    assert found["petwellness_collector_consent_snapshot_age_seconds", ""] >= 0
    assert found["process_resident_memory_bytes", ""] > 0
    [manifest] = [m for m in list_manifests(world.store) if m.start == 0]
    assert landed == landed | {
        "level": "info",
        "topic": "telemetry",
        "stream_id": manifest.stream_id,
        "partition": 0,
        "start": 0,
        "end": 3,
        "rows": 2,
        "rejected": {"malformed": 1},
        "consent_dropped": 0,
        "consent_dropped_by_reason": {},
        "offset_gaps": 0,
        "bytes": manifest.bytes,
        "reason": "age",
        "file": manifest.source_file,
    }
    assert 0 < landed["landing_s"] <= landed["latency_max_s"] < 60
    assert [line["event"] for line in one.lines()][:2] == ["started", "file_landed"]
    assert one.lines()[-1]["event"] == "stopped"
    assert one.lines()[-1]["left"] == {}
    # Whatever was consumed by then is landed; nothing of a message is in the log.
    assert sum(line["rows"] for line in one.lines("file_landed")) == world.landed().num_rows
    assert not any(word in str(one.lines()) for word in ("Rex", "Muster", "collar-"))


@pytest.mark.only_on("embedded", "it ends before it looks for a broker")
def test_a_port_that_is_taken_is_named(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = {"PETWELLNESS_COLLECTOR_METRICS_PORT": str(port)}
        with process(world, **settings) as one:
            assert one.process.wait(30) == 1
            [line] = one.errors().splitlines()
    assert f"127.0.0.1:{port}" in line
    assert "--metrics-port" in line
    assert "PETWELLNESS_COLLECTOR_METRICS_PORT" in line


@pytest.fixture(scope="module")
def s3_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[psutil.Popen, str]]:
    """An S3 server in a process of its own."""
    port = free_port()
    with (tmp_path_factory.mktemp("s3") / "s3.log").open("wb") as log:
        server = psutil.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        endpoint = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        until(answers, "the S3 server")
        yield server, endpoint
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3_server(s3_process: tuple[psutil.Popen, str]) -> Iterator[tuple[psutil.Popen, str, str]]:
    """An S3 server that can be frozen, and a new bucket on it."""
    server, endpoint = s3_process
    bucket = f"lake-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=endpoint, **KEYS).create_bucket(Bucket=bucket)
    yield server, endpoint, bucket
    server.resume()


@pytest.mark.parametrize("frozen_at", ["landing", "start"])
@pytest.mark.only_on("embedded", "the store hangs, not the broker")
def test_a_stop_while_the_store_hangs_ends_in_time(
    bare_world: World, s3_server: tuple[psutil.Popen, str, str], frozen_at: str
) -> None:
    server, endpoint, bucket = s3_server
    bare_world.store = S3Store(bucket, "", endpoint_url=endpoint, access_key_id="k", secret_access_key="s")
    bare_world.opt_out()
    lake = {
        "PETWELLNESS_LAKE_URL": f"s3://{bucket}",
        "PETWELLNESS_LAKE_ENDPOINT_URL": endpoint,
        "PETWELLNESS_LAKE_ACCESS_KEY_ID": "k",
        "PETWELLNESS_LAKE_SECRET_ACCESS_KEY": "s",
    }
    bare_world.send([bare_world.event(0)])
    if frozen_at == "start":
        server.suspend()
    port = free_port()
    stopping = {"PETWELLNESS_COLLECTOR_STOP_TIMEOUT_S": "1"}
    with process(bare_world, "--metrics-port", str(port), **stopping, **lake) as one:
        if frozen_at == "landing":
            until(lambda: one.lines("file_landed"), "a landed file")
            server.suspend()
            bare_world.send(map(bare_world.event, range(1, 5)), first=1)
            consumed = ("petwellness_collector_consumed_messages_total", "")
            until(lambda: scraped(port)[consumed] == 5, "five consumed messages")
        else:
            until(lambda: one.lines("started"), "its start")
        started = time.monotonic()
        assert one.end() == 0
        assert time.monotonic() - started < IN_TIME_S
        last = one.lines()[-1]
    server.resume()
    if frozen_at == "landing":
        [stopped] = one.lines("stopped")
        assert stopped["left"] == {"telemetry[0]": 4}
    assert last["event"] == "stop_timed_out"
    with process(bare_world, **lake) as one:
        rows = 5 if frozen_at == "landing" else 1
        until(lambda: sum(m.rows for m in list_manifests(bare_world.store)) == rows, f"{rows} landed rows")
        assert one.end() == 0
    assert bare_world.landed().num_rows == rows

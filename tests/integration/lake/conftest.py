"""Lakes on disk and on S3, stores that record, die or lose answers, and ranges to land in them."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer

from contracts.columns import TELEMETRY_SCHEMA
from lake.landing import FILLED_BY_CLAIM, Claim, Manifest, claim_range, land_range
from lake.store import LocalStore, ObjectExistsError, ObjectInfo, ObjectStore, S3Store

STREAM = "cluster.telemetry.topic1"
NOON = datetime(2026, 6, 1, 12)


class WatchedStore(ObjectStore):
    """Passes everything on, counts what is read and listed, and may die at its n-th put or lose an answer."""

    def __init__(self, store: ObjectStore) -> None:
        self.inner = store
        self.url = store.url
        self.counts: Counter[str] = Counter()
        self.before_put: Callable[[str], None] = lambda _: None
        self.after_put: Callable[[str], None] = lambda _: None

    def dies_at_put(self, n: int, after: bool) -> None:
        """Raise KeyboardInterrupt before or after the n-th put from now on."""
        left = [n]

        def die(is_after: bool) -> None:
            left[0] -= is_after == after
            if left[0] == 0 and is_after == after:
                left[0] = -(10**9)
                raise KeyboardInterrupt

        self.before_put, self.after_put = lambda _: die(False), lambda _: die(True)

    def loses_the_answer_for(self, part_of_key: str) -> None:
        """A put of such a key is done, and answered as if the object had been there before."""

        def lose(key: str) -> None:
            if part_of_key in key:
                raise ObjectExistsError(key)

        self.after_put = lose

    def put_new(self, key: str, data: bytes) -> None:
        self.before_put(key)
        self.inner.put_new(key, data)
        self.counts["puts"] += 1
        self.after_put(key)

    def get(self, key: str) -> bytes:
        self.counts["gets"] += 1
        return self.inner.get(key)

    def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        self.counts["listings"] += 1
        for info in self.inner.list(prefix, start_after, limit):
            self.counts["keys"] += 1
            yield info

    def folders(self, prefix: str) -> tuple[str, ...]:
        self.counts["listings"] += 1
        return self.inner.folders(prefix)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def uri(self, key: str) -> str:
        return self.inner.uri(key)

    def filesystem(self) -> Any:
        return self.inner.filesystem()

    def check(self) -> None:
        self.inner.check()


@pytest.fixture(scope="session")
def watched() -> Callable[[ObjectStore], WatchedStore]:
    return WatchedStore


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of a lake runs in a folder. Those marked `also_on_s3` run on S3 too, the others in the full form
    only: what they test is the work on objects, which is the same code."""
    if "lake" in metafunc.fixturenames:
        here = metafunc.definition.get_closest_marker("also_on_s3")
        s3 = "s3" if here else pytest.param("s3", marks=pytest.mark.full)
        metafunc.parametrize("lake", ["local", s3], indirect=True)


@pytest.fixture
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty lake: a folder, and a bucket with a prefix."""
    if request.param == "local":
        return LocalStore(tmp_path / "lake")
    endpoint = request.getfixturevalue("s3_endpoint")
    bucket = f"lake-{os.urandom(6).hex()}"
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket=bucket)
    return S3Store(bucket, "some/lake", endpoint_url=endpoint, access_key_id="k", secret_access_key="s")


def events(offsets: range, devices: int, seed: int) -> pa.Table:
    """One event at each offset, of collars and clinics in turns, with every kind of column filled."""
    draws = np.random.default_rng(seed)
    count = len(offsets)
    moments = [NOON + timedelta(seconds=int(s)) for s in draws.integers(0, 7200, count)]
    device = draws.integers(0, devices, count)
    values: dict[str, Any] = {
        "kafka_offset": [*offsets],
        "arrival_ts": [moment + timedelta(seconds=2) for moment in moments],
        "device_id": [f"collar-{i:04}" for i in device],
        "event_ts": moments,
        "event_id": [f"e{seed}-{offset}" for offset in offsets],
        "accel_x_g": [Decimal(int(v)) / 10_000 for v in draws.integers(-30_000, 30_000, count)],
        "gps_lat": [Decimal(int(v)) / 10**7 for v in draws.integers(0, 90 * 10**7, count)],
        "step_count": [int(v) if v else None for v in draws.integers(0, 5, count)],
        "capture_clinic_id": [None if i % 5 == 4 else f"clinic-{i % 5}" for i in device],
        "payload": [f'{{"n":{offset}}}' for offset in offsets],
    }
    fields = [field for field in TELEMETRY_SCHEMA if field.name not in FILLED_BY_CLAIM]
    arrays = [pa.array(values.get(field.name, [None] * count), field.type) for field in fields]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


@pytest.fixture(scope="session")
def claim_telemetry() -> Callable[..., Claim]:
    def claim(
        store: ObjectStore,
        start: int,
        rows: int,
        claimed_at: datetime,
        partition: int = 0,
        stream: str = STREAM,
    ) -> Claim:
        """Claim a range of `rows` offsets."""
        return claim_range(
            store,
            Claim(
                stream_id=stream,
                partition=partition,
                start=start,
                end=start + rows,
                feed="telemetry_events",
                source_system="petwellness-collar",
                decoder="collar-v1@1",
                claimed_at=claimed_at,
                claimed_by="test",
            ),
        )

    return claim


@pytest.fixture(scope="session")
def finish() -> Callable[..., Manifest]:
    def finish(store: ObjectStore, claim: Claim, devices: int = 12) -> Manifest:
        """Land a claimed range: the same rows for the same claim."""
        seed = claim.start * 100 + claim.partition
        return land_range(store, claim, events(range(claim.start, claim.end), devices, seed))

    return finish

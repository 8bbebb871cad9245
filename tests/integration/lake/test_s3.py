"""The lake on S3, over HTTP against a server: create-only puts, conflicts, readers, a store that is down."""

import socket
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from waiting import IN_TIME_S

from lake import store as store_module
from lake.extract import land_extract
from lake.landing import list_manifests
from lake.settings import LakeSettings
from lake.store import (
    ObjectExistsError,
    ObjectInfo,
    ObjectMissingError,
    ObjectStore,
    S3Store,
    StoreConflictError,
    StoreUnreachableError,
    open_store,
)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint: str, request: pytest.FixtureRequest) -> S3Store:
    bucket = f"lake-{abs(hash(request.node.name))}"
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket=bucket)
    opened = open_store(settings(f"s3://{bucket}/some/lake", endpoint), Path("unused"))
    assert isinstance(opened, S3Store)
    return opened


def settings(url: str, endpoint: str) -> LakeSettings:
    return LakeSettings.model_validate(
        {"url": url, "endpoint_url": endpoint, "access_key_id": "k", "secret_access_key": "s"}
    )


def test_objects_are_created_once_listed_and_read(store: S3Store) -> None:
    store.check()
    store.put_new("a/2", b"two")
    store.put_new("a/1", b"one")
    store.put_new("b", b"")
    with pytest.raises(ObjectExistsError, match="a/1"):
        store.put_new("a/1", b"other")
    assert store.get("a/1") == b"one"
    assert [*store.list("a/")] == [ObjectInfo("a/1", 3), ObjectInfo("a/2", 3)]
    assert store.get_many(["a/2", "a/1"]) == (b"two", b"one")
    with pytest.raises(ObjectMissingError, match="none"):
        store.get("none")
    store.delete("b")
    assert [info.key for info in store.list("")] == ["a/1", "a/2"]


def test_listing_goes_over_many_pages(store: S3Store) -> None:
    def small_pages(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = 2

    store._client.meta.events.register("before-parameter-build.s3.ListObjectsV2", small_pages)
    keys = [f"p/{number:04}" for number in range(7)]
    for key in keys:
        store.put_new(key, b"")
    assert [info.key for info in store.list("p/")] == keys


class Conflicts:
    """Answers the first puts with 409 in place of the server, as S3 does while another put is under way."""

    def __init__(self, store: S3Store, count: int) -> None:
        self.left = count
        self.seen = 0
        store._client.meta.events.register("before-send.s3.PutObject", self.answer)

    def answer(self, request: Any, **_: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        self.seen += 1
        if self.left == 0:
            return None
        self.left -= 1

        class Body:
            def stream(self) -> Iterator[bytes]:
                yield b"<Error><Code>ConditionalRequestConflict</Code><Message>again</Message></Error>"

            def read(self) -> bytes:
                return b"".join(self.stream())

        return AWSResponse(request.url, 409, {}, Body())


def test_a_conflict_is_tried_again_and_is_not_taken_for_existing(store: S3Store) -> None:
    conflicts = Conflicts(store, 3)
    store.put_new("claim", b"mine")
    assert store.get("claim") == b"mine"
    assert conflicts.seen == 4
    assert store.retries == {"conflict": 3}


def test_existing_is_not_tried_again(store: S3Store) -> None:
    store.put_new("claim", b"mine")
    conflicts = Conflicts(store, 0)
    with pytest.raises(ObjectExistsError):
        store.put_new("claim", b"other")
    assert conflicts.seen == 1


def test_endless_conflicts_end_with_an_error_that_is_not_existing(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CONFLICT_ATTEMPTS", 3)
    conflicts = Conflicts(store, 100)
    with pytest.raises(StoreConflictError, match="claim"):
        store.put_new("claim", b"mine")
    assert conflicts.seen == 3


def test_an_answer_that_was_lost_is_read_back(store: S3Store) -> None:
    """The put arrived, its answer did not: the client's own retry finds its object and says so."""
    store.put_new("claim", b"mine")
    with pytest.raises(ObjectExistsError):
        store.put_new("claim", b"mine")
    assert store.get("claim") == b"mine"


def test_an_extract_lands_and_readers_share_the_credentials(store: S3Store) -> None:
    moment = datetime(2026, 6, 1)
    table = pa.table(
        {
            "business_key": ["c1"],
            "op": ["upsert"],
            "changed_at": [moment],
            "payload": ["{}"],
            "clinic_id": ["c1"],
            "name": ["North"],
            "district": ["1"],
            "timezone": ["Europe/Zurich"],
        }
    )
    manifest = land_extract(
        store, source="sim", feed="clinics", extract_id="e1", table=table, complete=True, extracted_at=moment
    )
    assert list_manifests(store) == [manifest]
    filesystem, root = store.filesystem()
    read = pq.read_table(f"{root}/{manifest.source_file}", filesystem=filesystem)
    assert read["name"].to_pylist() == ["North"]
    store.delete(f"_manifests/{manifest.stream_id}/00000/{0:020}.json")
    again = land_extract(
        store, source="sim", feed="clinics", extract_id="e1", table=table, complete=True, extracted_at=moment
    )
    assert again == manifest


def fails_clearly(store: ObjectStore, *texts: str) -> None:
    started = time.monotonic()
    with pytest.raises(StoreUnreachableError) as caught:
        store.check()
    assert time.monotonic() - started < IN_TIME_S
    for text in texts:
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_named(endpoint: str) -> None:
    store = open_store(settings("s3://nowhere/x", endpoint), Path("unused"))
    fails_clearly(store, "nowhere", endpoint, "PETWELLNESS_LAKE_URL")
    with pytest.raises(StoreUnreachableError, match="nowhere"):
        store.put_new("a", b"")


def test_a_server_that_is_down_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        store = open_store(settings("s3://lake/x", endpoint), Path("unused"))
        fails_clearly(store, endpoint, "PETWELLNESS_LAKE_ENDPOINT_URL")


def test_a_server_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "READ_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        store = open_store(settings("s3://lake/x", endpoint), Path("unused"))
        assert store.retries == {}
        fails_clearly(store, endpoint, "PETWELLNESS_LAKE_ENDPOINT_URL")
        assert store.retries == {"client": store_module.ATTEMPTS - 1}

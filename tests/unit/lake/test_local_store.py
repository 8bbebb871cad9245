"""The local store: create-only, in order, and clear when its directory cannot be used."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lake.settings import LakeSettings
from lake.store import (
    LocalStore,
    ObjectExistsError,
    ObjectInfo,
    ObjectMissingError,
    S3Store,
    StoreUnreachableError,
    open_store,
)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "lake")


def test_of_many_writers_of_a_key_exactly_one_wins_and_its_bytes_stay(store: LocalStore) -> None:
    def put(number: int) -> int | None:
        try:
            store.put_new("a/b.json", bytes([number]) * 10_000)
        except ObjectExistsError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(put, range(24)) if number is not None]
    assert len(winners) == 1
    assert store.get("a/b.json") == bytes(winners) * 10_000


def test_listing_is_in_key_order_with_sizes_and_without_leftovers(store: LocalStore) -> None:
    for key in ("p/10/a", "p/1/b", "p/1/a", "p1/a", "q"):
        store.put_new(key, key.encode())
    assert [*store.list("p/1")] == [ObjectInfo("p/1/a", 5), ObjectInfo("p/1/b", 5), ObjectInfo("p/10/a", 6)]
    assert [info.key for info in store.list("")] == ["p/1/a", "p/1/b", "p/10/a", "p1/a", "q"]
    assert [*store.list("none/")] == []
    assert [*(Path(store.url) / ".tmp").iterdir()] == []


def test_bulk_reads_keep_the_order_asked_for(store: LocalStore) -> None:
    keys = [f"k/{number}" for number in range(40)]
    for key in keys:
        store.put_new(key, key.encode())
    assert store.get_many(keys[::-1]) == tuple(key.encode() for key in keys[::-1])


def test_missing_objects_and_deletes(store: LocalStore) -> None:
    store.put_new("a", b"1")
    store.delete("a")
    store.delete("a")
    with pytest.raises(ObjectMissingError, match="a"):
        store.get("a")


def test_a_directory_that_cannot_be_used_is_named_with_its_setting(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    broken = LocalStore(file / "lake")
    for use in (broken.check, lambda: broken.put_new("a", b""), lambda: broken.get("a")):
        with pytest.raises(StoreUnreachableError, match=r"file/lake.*PETWELLNESS_LAKE_URL"):
            use()


def test_readers_find_objects(store: LocalStore) -> None:
    store.put_new("a/b", b"x")
    filesystem, root = store.filesystem()
    with filesystem.open_input_stream(f"{root}/a/b") as stream:
        assert stream.read() == b"x"
    assert Path(store.uri("a/b")).read_bytes() == b"x"


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_directory_is_named_by_path_or_url(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "a lake"
    url = form.format(str(folder).replace(" ", "%20") if "://" in form else folder)
    assert open_store(LakeSettings(url=url), tmp_path).url == str(folder)


def test_the_default_lake_is_in_the_state_folder(tmp_path: Path) -> None:
    assert open_store(LakeSettings(), tmp_path).url == str(tmp_path / "lake")


def test_a_bucket_is_named_by_url(tmp_path: Path) -> None:
    store = open_store(LakeSettings(url="s3://bucket/some/prefix/"), tmp_path)
    assert isinstance(store, S3Store)
    assert store.uri("a/b") == "s3://bucket/some/prefix/a/b"


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://", "file://host/x"])
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(StoreUnreachableError, match="PETWELLNESS_LAKE_URL"):
        open_store(LakeSettings(url=url), tmp_path)

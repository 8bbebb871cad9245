"""Object stores with create-only puts: a local directory and S3.

Only bytes by key live here; names are in `layout`, the protocol in `landing`.
"Already exists" (HTTP 412) raises `ObjectExistsError`, a conflict of concurrent
puts (HTTP 409) is retried here: the first means somebody's object is there to
be read back, the second means nothing is there yet.
"""

import contextlib
import errno
import os
import random
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

if TYPE_CHECKING:
    import pyarrow.fs

    from lake.settings import LakeSettings

URL_SETTING = "PETWELLNESS_LAKE_URL"
ENDPOINT_SETTING = "PETWELLNESS_LAKE_ENDPOINT_URL"
CREDENTIAL_SETTINGS = "PETWELLNESS_LAKE_ACCESS_KEY_ID and PETWELLNESS_LAKE_SECRET_ACCESS_KEY"

# Two attempts at 5 s to connect or 12 s of silence stay under the promised 30 s.
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 12
ATTEMPTS = 2
CONFLICT_ATTEMPTS = 8
READ_THREADS = 16

# Why a request was sent again: HTTP 409, and what the S3 client itself repeats (5xx, throttling, no answer).
RETRY_CONFLICT, RETRY_CLIENT = "conflict", "client"

# What an operating system says of a full disk; the fix is another than for a directory that is not writable.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class StoreError(Exception):
    """Base of everything an object store raises."""


class ObjectExistsError(StoreError):
    """A create-only put found the key taken; read it back."""


class ObjectMissingError(StoreError):
    """No object under the key."""


class StoreConflictError(StoreError):
    """Concurrent puts of one key kept conflicting (HTTP 409) beyond the bounded retries."""


class StoreUnreachableError(StoreError):
    """The store cannot be used as configured; the text names the address and the setting to change."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object: key relative to the lake's root, size in bytes."""

    key: str
    size: int


class ObjectStore(ABC):
    """Immutable objects by key. Safe to share between threads."""

    url: str

    @abstractmethod
    def put_new(self, key: str, data: bytes) -> None:
        """Create an object, durable on return. Raises ObjectExistsError when the key is taken."""

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Content of an object. Raises ObjectMissingError."""

    @abstractmethod
    def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix` and comes after `start_after`, in key order, `limit` at most."""

    @abstractmethod
    def folders(self, prefix: str) -> tuple[str, ...]:
        """Names between `prefix` (which ends in "/") and the next "/" of any key below it, in order."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error. For retention and erasure only."""

    @abstractmethod
    def uri(self, key: str) -> str:
        """Address of an object for readers: a local path, or `s3://bucket/key`."""

    @abstractmethod
    def filesystem(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        """A pyarrow filesystem with this store's credentials, and the root to put before keys."""

    @abstractmethod
    def check(self) -> None:
        """Raise StoreUnreachableError when the store cannot be used."""

    @property
    def retries(self) -> Mapping[str, int]:
        """How often requests were sent again, by reason (RETRY_*); a store that never does has none."""
        return {}

    def get_many(self, keys: Sequence[str]) -> tuple[bytes, ...]:
        """Contents of several objects, read in parallel, in the order of `keys`."""
        if len(keys) < 2:
            return tuple(self.get(key) for key in keys)
        with ThreadPoolExecutor(min(READ_THREADS, len(keys))) as pool:
            return tuple(pool.map(self.get, keys))


class LocalStore(ObjectStore):
    """A directory. Creation is a hard link of a synced temporary file, which fails if the name exists."""

    _TEMPORARY = ".tmp"

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.url = str(self._root)

    def _path(self, key: str) -> Path:
        return self._root / key

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            fix = "free space there" if error.errno in _FULL else "make it writable"
            raise StoreUnreachableError(
                f"lake directory {self.url} cannot be used ({error.strerror or error}); "
                f"{fix} or change {URL_SETTING}"
            ) from error

    def check(self) -> None:
        with self._clear_errors():
            temporary = self._root / self._TEMPORARY
            temporary.mkdir(parents=True, exist_ok=True)
            probe = temporary / uuid.uuid4().hex
            probe.touch()
            probe.unlink()

    def put_new(self, key: str, data: bytes) -> None:
        target = self._path(key)
        with self._clear_errors():
            if target.exists():
                raise ObjectExistsError(key)
            temporary = self._root / self._TEMPORARY / uuid.uuid4().hex
            temporary.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(temporary, target)
                except FileExistsError:
                    raise ObjectExistsError(key) from None
            finally:
                temporary.unlink(missing_ok=True)
            self._sync_directory(target.parent)

    @staticmethod
    def _sync_directory(directory: Path) -> None:
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def get(self, key: str) -> bytes:
        with self._clear_errors():
            try:
                return self._path(key).read_bytes()
            except FileNotFoundError:
                raise ObjectMissingError(key) from None

    def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        with self._clear_errors():
            folder = prefix.rpartition("/")[0]
            keys = [key for key in self._walk(folder, start_after) if key.startswith(prefix)]
            found = [ObjectInfo(key, self._path(key).stat().st_size) for key in sorted(keys)[:limit]]
        yield from found

    def _walk(self, folder: str, start_after: str) -> Iterator[str]:
        try:
            entries = [*os.scandir(self._root / folder)]
        except FileNotFoundError:
            return
        for entry in entries:
            key = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                below = f"{key}/"
                if key != self._TEMPORARY and (below > start_after or start_after.startswith(below)):
                    yield from self._walk(key, start_after)
            elif key > start_after:
                yield key

    def folders(self, prefix: str) -> tuple[str, ...]:
        with self._clear_errors():
            try:
                entries = [*os.scandir(self._root / prefix)]
            except FileNotFoundError:
                return ()
            return tuple(sorted(e.name for e in entries if e.is_dir() and e.name != self._TEMPORARY))

    def delete(self, key: str) -> None:
        with self._clear_errors():
            self._path(key).unlink(missing_ok=True)

    def uri(self, key: str) -> str:
        return str(self._path(key))

    def filesystem(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        import pyarrow.fs

        return pyarrow.fs.LocalFileSystem(), str(self._root)


class S3Store(ObjectStore):
    """A bucket and prefix on S3 or a server that honours `If-None-Match: *` on puts."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
    ) -> None:
        import boto3
        from botocore.config import Config

        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint_url = endpoint_url
        self._region = region or "us-east-1"
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=self._region,
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret_access_key,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
                max_pool_connections=READ_THREADS,
                s3={"addressing_style": "path" if endpoint_url else "auto"},
            ),
        )
        self._retries: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._client.meta.events.register("request-created.s3", self._note_attempt)

    @property
    def retries(self) -> Mapping[str, int]:
        with self._counting:
            return dict(self._retries)

    def _count_retry(self, reason: str) -> None:
        with self._counting:
            self._retries[reason] += 1

    def _note_attempt(self, request: Any, **_: Any) -> None:
        if request.context.get("retries", {}).get("attempt", 1) > 1:
            self._count_retry(RETRY_CLIENT)

    @contextlib.contextmanager
    def _clear_errors(self, key: str = "") -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        address = f"{self.url} at {self._endpoint_url or self._client.meta.endpoint_url}"
        try:
            yield
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            code = error.response.get("Error", {}).get("Code", "")
            if code == "NoSuchBucket" or (status == 404 and not key):
                raise StoreUnreachableError(
                    f"lake {address}: there is no bucket '{self._bucket}'; create it or change {URL_SETTING}"
                ) from error
            if status == 404:
                raise ObjectMissingError(key) from error
            if status == 412:
                raise ObjectExistsError(key) from error
            if status in (301, 400, 401, 403):
                raise StoreUnreachableError(
                    f"lake {address} refused the request ({code}); check {CREDENTIAL_SETTINGS}"
                ) from error
            raise StoreUnreachableError(
                f"lake {address} keeps failing ({code}); check the server or {ENDPOINT_SETTING}"
            ) from error
        except BotoCoreError as error:
            raise StoreUnreachableError(
                f"lake {address} cannot be reached ({type(error).__name__}); "
                f"check {ENDPOINT_SETTING} and {CREDENTIAL_SETTINGS}"
            ) from error

    def check(self) -> None:
        with self._clear_errors():
            self._client.head_bucket(Bucket=self._bucket)

    def put_new(self, key: str, data: bytes) -> None:
        from botocore.exceptions import ClientError

        for attempt in range(CONFLICT_ATTEMPTS):
            if attempt:
                self._count_retry(RETRY_CONFLICT)
                # Full jitter, so that the parties of a conflict part ways.
                time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))
            with self._clear_errors(key):
                try:
                    self._client.put_object(
                        Bucket=self._bucket, Key=self._prefix + key, Body=data, IfNoneMatch="*"
                    )
                    return
                except ClientError as error:
                    if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 409:
                        raise
        raise StoreConflictError(
            f"creating {key} in {self.url} conflicted with other writers {CONFLICT_ATTEMPTS} times; run again"
        )

    def get(self, key: str) -> bytes:
        with self._clear_errors(key):
            response = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            return response["Body"].read()

    def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        with self._clear_errors():
            for page in self._pages(prefix, start_after=start_after, limit=limit):
                for item in page.get("Contents", []):
                    yield ObjectInfo(item["Key"][len(self._prefix) :], item["Size"])

    def folders(self, prefix: str) -> tuple[str, ...]:
        whole = self._prefix + prefix
        with self._clear_errors():
            return tuple(
                item["Prefix"][len(whole) :].rstrip("/")
                for page in self._pages(prefix, delimiter="/")
                for item in page.get("CommonPrefixes", [])
            )

    def _pages(
        self, prefix: str, start_after: str = "", limit: int | None = None, delimiter: str = ""
    ) -> Iterator[dict[str, Any]]:
        request = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        if start_after:
            request["StartAfter"] = self._prefix + start_after
        if delimiter:
            request["Delimiter"] = delimiter
        paging = {} if limit is None else {"MaxItems": limit, "PageSize": min(limit, 1000)}
        paginator = self._client.get_paginator("list_objects_v2")
        yield from paginator.paginate(**request, PaginationConfig=paging)

    def delete(self, key: str) -> None:
        with self._clear_errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def uri(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def filesystem(self) -> "tuple[pyarrow.fs.FileSystem, str]":
        import pyarrow.fs

        endpoint = urlparse(self._endpoint_url) if self._endpoint_url else None
        filesystem = pyarrow.fs.S3FileSystem(
            access_key=self._access_key_id,
            secret_key=self._secret_access_key,
            region=self._region,
            scheme=endpoint.scheme if endpoint else "https",
            endpoint_override=endpoint.netloc if endpoint else None,
            connect_timeout=CONNECT_TIMEOUT_S,
            request_timeout=READ_TIMEOUT_S,
        )
        return filesystem, f"{self._bucket}/{self._prefix}".rstrip("/")


def open_store(settings: "LakeSettings", home: Path) -> ObjectStore:
    """The store that the settings name: `file:///dir`, a path, `s3://bucket/prefix`, or the lake in `home`.

    Nothing is contacted (`check()` does). Raises StoreUnreachableError for an address of another kind.
    """
    url = settings.resolved_url(home)
    secret = settings.secret_access_key
    parsed = urlparse(url)
    if parsed.scheme == "s3" and parsed.netloc:
        return S3Store(
            parsed.netloc,
            parsed.path.strip("/"),
            endpoint_url=settings.endpoint_url,
            region=settings.region,
            access_key_id=settings.access_key_id,
            secret_access_key=secret.get_secret_value() if secret else None,
        )
    if parsed.scheme == "file" and not parsed.netloc:
        return LocalStore(Path(unquote(parsed.path)))
    if "://" not in url:
        return LocalStore(Path(url).expanduser())
    raise StoreUnreachableError(
        f"'{url}' is no lake address; set {URL_SETTING} to a directory, file:///dir or s3://bucket/prefix"
    )

"""Names of every object in the lake: pure functions, no I/O.

A range is `[start, end)` of offsets of one partition of one stream; everything
about it carries the stream's id, so that a recreated topic or a restarted
embedded broker never meets the names of its predecessor.
"""

import re
from datetime import datetime

CLAIMS = "_claims/"
LANDING = "landing/"
REJECTS = "_rejects/"
MANIFESTS = "_manifests/"
CONSENT = "_consent/"
WAVES = "_waves/"

# Replays of a stream's rejects are a stream of their own, named after it.
REPLAYS = "rejects."

RangeKey = tuple[str, int, int]
"""`(stream_id, partition, start)`: what a claim and a manifest are keyed by."""

_NAME = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*")
_RANGE_OBJECT = re.compile(r"_(?:claims|manifests)/([^/]+)/(\d{5,})/(\d{20})\.json")


class LayoutError(ValueError):
    """A name that cannot be part of an object key."""


def _name(kind: str, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise LayoutError(
            f"{kind} '{value}' cannot be part of an object name: use letters, digits, '.', '_', '-', '='"
        )
    return value


def _range_prefix(root: str, stream_id: str, partition: int) -> str:
    return f"{root}{_name('stream_id', stream_id)}/{partition:05}/"


def replay_stream(stream_id: str) -> str:
    """The stream that replays of a stream's rejects land in, under the same partition numbers."""
    return f"{REPLAYS}{stream_id}"


def is_replay(stream_id: str) -> bool:
    """Whether a stream holds replayed rejects, which came from the broker once before."""
    return stream_id.startswith(REPLAYS)


def claims_prefix(stream_id: str, partition: int) -> str:
    """Prefix of the claim chain of one partition."""
    return _range_prefix(CLAIMS, stream_id, partition)


def manifests_prefix(stream_id: str, partition: int) -> str:
    """Prefix of the manifests of one partition."""
    return _range_prefix(MANIFESTS, stream_id, partition)


def claim_key(stream_id: str, partition: int, start: int) -> str:
    """Key of the claim that freezes the range starting at `start`."""
    return f"{claims_prefix(stream_id, partition)}{start:020}.json"


def manifest_key(stream_id: str, partition: int, start: int) -> str:
    """Key of the manifest of the range starting at `start`."""
    return f"{manifests_prefix(stream_id, partition)}{start:020}.json"


def range_of(key: str) -> RangeKey:
    """The range a claim's or manifest's key stands for. Raises LayoutError for any other key."""
    match = _RANGE_OBJECT.fullmatch(key)
    if not match:
        raise LayoutError(f"'{key}' names neither a claim nor a manifest")
    return match[1], int(match[2]), int(match[3])


def landing_key(feed: str, claimed_at: datetime, stream_id: str, partition: int, start: int, end: int) -> str:
    """Key of a range's main object, under the UTC date of its claim."""
    return (
        f"{LANDING}{_name('feed', feed)}/date={claimed_at:%Y-%m-%d}/"
        f"{_name('stream_id', stream_id)}+{partition}+{start}+{end}.parquet"
    )


def reject_key(feed: str, stream_id: str, partition: int, start: int, sha256: str) -> str:
    """Key of a range's dead letters, named by their content so that no other content can take it."""
    return (
        f"{REJECTS}{_name('feed', feed)}/"
        f"{_name('stream_id', stream_id)}+{partition}+{start}+{sha256[:16]}.parquet"
    )


def consent_key(snapshot_id: str) -> str:
    """Key of a consent snapshot."""
    return f"{CONSENT}{_name('snapshot_id', snapshot_id)}.json"


def wave_key(wave_id: str) -> str:
    """Key of the record of a wave that was published and seen landed."""
    return f"{WAVES}{_name('wave_id', wave_id)}.json"

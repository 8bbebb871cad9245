"""Names of every object in the lake: pure functions, no I/O.

A range is `[start, end)` of offsets of one partition of one stream; everything
about it carries the stream's id, so that a recreated topic or a restarted
embedded broker never meets the names of its predecessor.
"""

import re
from datetime import date, datetime

CLAIMS = "_claims/"
LANDING = "landing/"
REJECTS = "_rejects/"
MANIFESTS = "_manifests/"
CONSENT = "_consent/"
WAVES = "_waves/"
COMPACTED = "compacted/"
SNAPSHOTS = "_snapshots/"
GENERATIONS = "_catalogue/generations/"
SEGMENTS = "_catalogue/segments/"
REDACTIONS = "_redactions/"
REDACTION_AUDIT = "_redactions/audit/"
DISPUTES_LISTED = "_disputes/listed/"
DISPUTES_DECIDED = "_disputes/decided/"
QUARANTINE = "_quarantine/"
REPLACEMENTS = "_replacements/"
REDACTED = "redacted/"
KEPT = "_kept/"
COLD = "cold/"
COLD_DAYS = "_cold/"
PROGRESS = "_progress/"
DEAD_STREAMS = "_dead_streams/"

# Replays of a stream's rejects are a stream of their own, named after it.
REPLAYS = "rejects."

RangeKey = tuple[str, int, int]
"""`(stream_id, partition, start)`: what a claim and a manifest are keyed by."""

_NAME = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*")
_RANGE_OBJECT = re.compile(r"_(?:claims|manifests)/([^/]+)/(\d{5,})/(\d{20})\.json")
_SNAPSHOT = re.compile(r"_snapshots/(\d{4}-\d{2}-\d{2})/(\d{6})\.json")
_GENERATION = re.compile(r"_catalogue/generations/(\d{8})\.json")
_SEGMENT = re.compile(r"_catalogue/segments/(\d{8}T\d{6})-[0-9a-f]+\.parquet")
_LAST_GENERATION = 10**8 - 1
_WRITTEN = "%Y%m%dT%H%M%S"
_MARKED = "%Y%m%dT%H%M%S%f"
_COMPACTED = re.compile(r"compacted/[^/]+/date=(\d{4}-\d{2}-\d{2})/(\d{8}T\d{6})-[0-9a-f]+-\d{5}\.parquet")
_REJECT_OBJECT = re.compile(r"_rejects/[^/]+/([^/+]+)\+(\d+)\+(\d+)\+[0-9a-f]{16}\.parquet")
_REPLACEMENT = re.compile(r"_replacements/([^/]+)/(\d{5,})/(\d{20})/(\d{6})\.json")
_PROGRESS = re.compile(r"_progress/(\d{8}T\d{12})-[0-9a-zA-Z_-]*\.json")
_DEAD_STREAM = re.compile(r"_dead_streams/([^/]+)\.json")
_COLD_DAY = re.compile(r"_cold/([^/]+)/(\d{4}-\d{2}-\d{2})/(\d{6})\.json")
_COLD_OBJECT = re.compile(r"cold/([^/]+)/date=(\d{4}-\d{2}-\d{2})/\d{6}\+\d{5}\+[0-9a-f]{16}\.parquet")
_REDACTED_OBJECT = re.compile(r"redacted/[^/]+/([^/+]+)\+(\d+)\+(\d+)\+\d+\+(\d{6})\+[0-9a-f]{16}\.parquet")

_KEPT_OBJECT = re.compile(
    r"_kept/([^/]+)/until=(\d{4}-\d{2}-\d{2})/([^/]+)/[^/+]+\+\d+\+\d+\+\d+\+[0-9a-f]{16}\.parquet"
)


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


def range_of_reject(key: str) -> RangeKey:
    """The range whose dead letters an object holds. Raises LayoutError for any other key."""
    match = _REJECT_OBJECT.fullmatch(key)
    if not match:
        raise LayoutError(f"'{key}' names no dead letters")
    return match[1], int(match[2]), int(match[3])


def redaction_key(redaction_id: str) -> str:
    """Key of an entry of the redaction ledger."""
    return f"{REDACTIONS}{_name('redaction_id', redaction_id)}.json"


def dispute_key(listing_id: str) -> str:
    """Key of an entry that lists disputed spans."""
    return f"{DISPUTES_LISTED}{_name('listing_id', listing_id)}.json"


def decision_key(decision_id: str) -> str:
    """Key of a person's decision of disputed spans."""
    return f"{DISPUTES_DECIDED}{_name('decision_id', decision_id)}.json"


def quarantine_key(quarantine_id: str) -> str:
    """Key of an entry of the quarantine ledger."""
    return f"{QUARANTINE}{_name('quarantine_id', quarantine_id)}.json"


def replacement_key(stream_id: str, partition: int, start: int, number: int) -> str:
    """Key of the pointer that says which objects stand for a range since its `number`-th redaction."""
    return f"{_range_prefix(REPLACEMENTS, stream_id, partition)}{start:020}/{number:06}.json"


def replacement_of(key: str) -> tuple[RangeKey, int]:
    """The range and number a pointer's key stands for. Raises LayoutError for any other key."""
    match = _REPLACEMENT.fullmatch(key)
    if not match:
        raise LayoutError(f"'{key}' names no replacement")
    return (match[1], int(match[2]), int(match[3])), int(match[4])


def redacted_key(
    feed: str, stream_id: str, partition: int, start: int, end: int, number: int, sha256: str
) -> str:
    """Key of a range's rows without the redacted ones; number and content's hash make it nobody else's."""
    return (
        f"{REDACTED}{_name('feed', feed)}/{_name('stream_id', stream_id)}"
        f"+{partition}+{start}+{end}+{number:06}+{sha256[:16]}.parquet"
    )


def redacted_of(key: str) -> tuple[RangeKey, int]:
    """The range and number of the redaction that wrote an object. Raises LayoutError for any other key."""
    match = _REDACTED_OBJECT.fullmatch(key)
    if not match:
        raise LayoutError(f"'{key}' names no redacted range")
    return (match[1], int(match[2]), int(match[3])), int(match[4])


def kept_key(
    feed: str,
    until: date,
    redaction_id: str,
    stream_id: str,
    partition: int,
    start: int,
    end: int,
    sha256: str,
) -> str:
    """Key of rows of a range that an entry has put aside, by the first day on which they need not be kept."""
    return (
        f"{KEPT}{_name('feed', feed)}/until={until.isoformat()}/{_name('redaction_id', redaction_id)}/"
        f"{_name('stream_id', stream_id)}+{partition}+{start}+{end}+{sha256[:16]}.parquet"
    )


def kept_of(key: str) -> tuple[str, date, str]:
    """Feed, first day on which they need not be kept, and entry of rows put aside. Raises LayoutError for any other
    key."""
    match = _KEPT_OBJECT.fullmatch(key)
    if not match:
        raise LayoutError(f"'{key}' names no rows that were put aside")
    return match[1], date.fromisoformat(match[2]), match[3]


def kept_audit_key(sha256: str) -> str:
    """Key of the record that rows put aside were deleted at the end of their term."""
    return f"{REDACTION_AUDIT}kept-{sha256}.json"


def audit_key(stream_id: str, partition: int, start: int, number: int) -> str:
    """Key of the record that the objects of a range's `number`-th redaction were deleted."""
    return f"{REDACTION_AUDIT}{_name('stream_id', stream_id)}+{partition}+{start}+{number:06}.json"


def cold_key(table: str, day: date, n: int, position: int, sha256: str) -> str:
    """Key of a file of a table's day in cold storage: its statement's number, its place, its content's hash."""
    return f"{COLD}{_name('table', table)}/date={day.isoformat()}/{n:06}+{position:05}+{sha256[:16]}.parquet"


def cold_of(key: str) -> tuple[str, date]:
    """Table and day of a file in cold storage. Raises LayoutError for any other key."""
    match = _COLD_OBJECT.fullmatch(key)
    if not match:
        raise LayoutError(f"'{key}' names no file in cold storage")
    return match[1], date.fromisoformat(match[2])


def cold_day_key(table: str, day: date, n: int) -> str:
    """Key of the n-th statement, counted from 1, of what cold storage holds of a table's day."""
    return f"{COLD_DAYS}{_name('table', table)}/{day.isoformat()}/{n:06}.json"


def cold_day_of(key: str) -> tuple[str, date, int]:
    """Table, day and number of a statement's key. Raises LayoutError for any other key."""
    match = _COLD_DAY.fullmatch(key)
    if not match:
        raise LayoutError(f"'{key}' names no statement of cold storage")
    return match[1], date.fromisoformat(match[2]), int(match[3])


def consent_key(snapshot_id: str) -> str:
    """Key of a consent snapshot."""
    return f"{CONSENT}{_name('snapshot_id', snapshot_id)}.json"


def wave_key(wave_id: str) -> str:
    """Key of the record of a wave that was published and seen landed."""
    return f"{WAVES}{_name('wave_id', wave_id)}.json"


def snapshots_prefix(day: date) -> str:
    """Prefix of the snapshots of one arrival day."""
    return f"{SNAPSHOTS}{day.isoformat()}/"


def snapshot_key(day: date, n: int) -> str:
    """Key of an arrival day's n-th snapshot, counted from 1."""
    return f"{snapshots_prefix(day)}{n:06}.json"


def snapshot_of(key: str) -> tuple[date, int]:
    """Day and number of a snapshot's key. Raises LayoutError for any other key."""
    match = _SNAPSHOT.fullmatch(key)
    if not match:
        raise LayoutError(f"'{key}' names no snapshot")
    return date.fromisoformat(match[1]), int(match[2])


def compacted_key(feed: str, day: date, written_at: datetime, writer: str, position: int) -> str:
    """Key of a compacted file: whose it is and when its writer began (UTC), so that orphans show their age."""
    return (
        f"{COMPACTED}{_name('feed', feed)}/date={day.isoformat()}/"
        f"{written_at.strftime(_WRITTEN)}-{writer}-{position:05}.parquet"
    )


def compacted_of(key: str) -> tuple[date, datetime]:
    """Arrival day of a compacted file, and when its writer began. Raises LayoutError for any other key."""
    match = _COMPACTED.fullmatch(key)
    if not match:
        raise LayoutError(f"'{key}' names no compacted file")
    return date.fromisoformat(match[1]), datetime.strptime(match[2], _WRITTEN)


def progress_key(marked_at: datetime, writer: str) -> str:
    """Key of a progress mark: when it was made (UTC), so that a listing is in order of time, and by whom."""
    return f"{PROGRESS}{marked_at.strftime(_MARKED)}-{writer}.json"


def progress_marked_at(key: str) -> datetime:
    """When a progress mark was made. Raises LayoutError for any other key."""
    match = _PROGRESS.fullmatch(key)
    if not match:
        raise LayoutError(f"'{key}' names no progress mark")
    return datetime.strptime(match[1], _MARKED)


def dead_stream_key(stream_id: str) -> str:
    """Key of the statement that nothing more comes of a stream."""
    return f"{DEAD_STREAMS}{_name('stream_id', stream_id)}.json"


def dead_stream_of(key: str) -> str:
    """The stream that is declared dead. Raises LayoutError for any other key."""
    match = _DEAD_STREAM.fullmatch(key)
    if not match:
        raise LayoutError(f"'{key}' declares no stream dead")
    return match[1]


def generation_key(n: int) -> str:
    """Key of the catalogue's n-th generation. Numbers count down, so that a listing begins with the newest."""
    return f"{GENERATIONS}{_LAST_GENERATION - n:08}.json"


def generation_of(key: str) -> int:
    """Number of a generation's key. Raises LayoutError for any other key."""
    match = _GENERATION.fullmatch(key)
    if not match:
        raise LayoutError(f"'{key}' names no generation of the catalogue")
    return _LAST_GENERATION - int(match[1])


def segment_key(written_at: datetime, sha256: str) -> str:
    """Key of one Parquet file of the catalogue: when it was written (UTC) and its content's hash."""
    return f"{SEGMENTS}{written_at.strftime(_WRITTEN)}-{sha256[:16]}.parquet"


def segment_written_at(key: str) -> datetime:
    """When a file of the catalogue was written. Raises LayoutError for any other key."""
    match = _SEGMENT.fullmatch(key)
    if not match:
        raise LayoutError(f"'{key}' names no file of the catalogue")
    return datetime.strptime(match[1], _WRITTEN)

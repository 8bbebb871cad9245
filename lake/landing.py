"""The landing protocol: claim, rejects, main object, manifest; and recovery from wherever it stopped.

Knows ranges and Arrow tables, not Kafka: consuming, decoding and committing live
in `ingestion.collector`, extracts in `extract`. Every step is a create-only put,
so whoever comes second adopts what the first one stored.
"""

import contextlib
import hashlib
import io
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, date, datetime
from itertools import chain
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.columns import ENVELOPE, REJECT_SCHEMA, TELEMETRY_SCHEMA, record_schema
from contracts.registry import TELEMETRY_FEED
from contracts.telemetry import NOT_BEFORE
from lake import catalogue, layout
from lake.chains import CHAIN_START, chain_faults
from lake.store import ObjectExistsError, ObjectMissingError, ObjectStore

FOOTER_KEY = b"petwellness"
# Of the landing files' columns; goes up with each column or feed that is added (docs/schema-evolution.md).
SCHEMA_VERSION = 2
COMPRESSION = "zstd"

# Texts that hardly repeat; a dictionary of them costs time and space.
_DISTINCT_TEXTS = {"payload", "event_id", "business_key"}

# Columns of the envelope that `land_range` fills in.
FILLED_BY_CLAIM = {field.name for field in ENVELOPE} - {"kafka_offset", "arrival_ts"}


class LandingError(Exception):
    """Base of what the landing protocol raises besides the store's own errors."""


class LandingLawError(LandingError):
    """rows + rejected + consent_dropped + offset_gaps differs from end - start."""


class ClaimChainError(LandingError):
    """The claims of a partition do not begin at 0, or do not follow one another."""


class LandingSchemaError(LandingError):
    """A table lacks a column its feed's contract names, or holds one that cannot be cast to it."""


class Claim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The frozen bounds of a range `[start, end)` and everything needed to land it the same way again.

    `decoder` is `name@version`; `gap_reason` marks a hole that the log itself has
    (nothing to replay); the three extract fields are null for streams. `not_before` is
    the first time of receipt that is believed of a message. `replayed`
    is for a stream of replayed rejects: the original offsets, as ascending runs
    `[first, end)`, that the range's own offsets stand for in that order.
    """

    stream_id: str
    partition: int
    start: int
    end: int
    feed: str
    source_system: str
    decoder: str
    claimed_at: datetime
    claimed_by: str
    consent_snapshot_id: str | None = None
    not_before: datetime = NOT_BEFORE
    gap_reason: str | None = None
    extract_id: str | None = None
    complete: bool | None = None
    extracted_at: datetime | None = None
    replayed: tuple[tuple[int, int], ...] | None = None

    @property
    def range_key(self) -> layout.RangeKey:
        return self.stream_id, self.partition, self.start

    @property
    def landing_key(self) -> str:
        return layout.landing_key(
            self.feed, self.claimed_at, self.stream_id, self.partition, self.start, self.end
        )


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What one landed range holds, derived from the stored main object.

    `source_file` is the main object's key, `bytes` and `sha256` are of that
    object, `ingested_at` is the claim's time, times are naive UTC. The reasons of
    `consent_dropped` are empty in ranges landed before they were counted, and in
    replays of rejects. A range that was redacted keeps its manifest: `replacements`
    knows the objects in force.
    """

    stream_id: str
    partition: int
    start: int
    end: int
    feed: str
    source_system: str
    source_file: str
    rows: int
    rejected_by_reason: dict[str, int]
    consent_dropped: int
    offset_gaps: int
    rows_by_event_date: dict[str, int]
    min_event_ts: datetime | None
    max_event_ts: datetime | None
    min_arrival_ts: datetime | None
    max_arrival_ts: datetime | None
    ingested_at: datetime
    bytes: int
    sha256: str
    schema_version: int
    decoder: str
    consent_snapshot_id: str | None
    gap_reason: str | None
    reject_object: str | None
    extract_id: str | None
    complete: bool | None
    extracted_at: datetime | None
    consent_dropped_by_reason: dict[str, int] = {}

    @property
    def range_key(self) -> layout.RangeKey:
        return self.stream_id, self.partition, self.start

    @property
    def rejected(self) -> int:
        """Number of rejected messages, whatever the reason."""
        return sum(self.rejected_by_reason.values())


class _Footer(msgspec.Struct, frozen=True, kw_only=True):
    """What the main object's footer carries under FOOTER_KEY."""

    claim: Claim
    schema_version: int
    rejected_by_reason: dict[str, int]
    consent_dropped: int
    offset_gaps: int
    rows_by_event_date: dict[str, int]
    reject_object: str | None
    consent_dropped_by_reason: dict[str, int] = {}


def utc_now() -> datetime:
    """The present as naive UTC microseconds."""
    return datetime.now(UTC).replace(tzinfo=None)


def feed_schema(feed: str) -> pa.Schema:
    """Schema of a feed's landing files. Raises KeyError for an unknown feed."""
    return TELEMETRY_SCHEMA if feed == TELEMETRY_FEED else record_schema(feed)


def claim_range(store: ObjectStore, claim: Claim) -> Claim:
    """Freeze a range; returns the claim in force, which is another's if that one came first.

    Compare with `==`: a claim that differs from the given one has to be replayed
    with its own bounds, decoder and consent snapshot.
    """
    key = layout.claim_key(*claim.range_key)
    try:
        store.put_new(key, msgspec.json.encode(claim))
    except ObjectExistsError:
        return read_claim(store, claim.range_key)
    return claim


def read_claim(store: ObjectStore, range_key: layout.RangeKey) -> Claim:
    """The stored claim of a range. Raises ObjectMissingError."""
    return msgspec.json.decode(store.get(layout.claim_key(*range_key)), type=Claim)


def land_range(
    store: ObjectStore,
    claim: Claim,
    table: pa.Table,
    rejects: pa.Table | None = None,
    *,
    consent_dropped: int = 0,
    consent_dropped_by_reason: Mapping[str, int] | None = None,
    offset_gaps: int = 0,
) -> Manifest:
    """Store a claimed range: rejects, then the main object, then the manifest.

    `table` holds `kafka_offset`, `arrival_ts`, the feed's typed columns and
    `payload`; the rest of the envelope comes from the claim. `rejects` follows
    REJECT_SCHEMA. If the range's main object is already there, it stays and the
    manifest describes that one. `consent_dropped` is the sum of its reasons.

    Raises LandingLawError before anything is stored if the counts do not add up,
    LandingSchemaError if a column is missing or does not fit.
    """
    rejected_by_reason = _count_by(rejects["reason"]) if rejects is not None else {}
    _check_law(claim, table.num_rows, sum(rejected_by_reason.values()), consent_dropped, offset_gaps)
    drops_by_reason = _drops_by_reason(claim, consent_dropped, consent_dropped_by_reason)
    whole = with_envelope(table, claim)
    reject_object = _put_rejects(store, claim, rejects) if rejects is not None and rejects.num_rows else None
    footer = _Footer(
        claim=claim,
        schema_version=SCHEMA_VERSION,
        rejected_by_reason=rejected_by_reason,
        consent_dropped=consent_dropped,
        offset_gaps=offset_gaps,
        rows_by_event_date=_rows_by_event_date(whole),
        reject_object=reject_object,
        consent_dropped_by_reason=drops_by_reason,
    )
    data = parquet_bytes(whole, {FOOTER_KEY: msgspec.json.encode(footer)})
    with contextlib.suppress(ObjectExistsError):  # Then that object is the range.
        store.put_new(claim.landing_key, data)
    return _put_manifest(store, claim.landing_key)


def recover_range(store: ObjectStore, claim: Claim) -> Manifest | None:
    """Finish a claimed range from what is stored; None if its main object has yet to be written."""
    with contextlib.suppress(ObjectMissingError):
        return read_manifest(store, claim.range_key)
    with contextlib.suppress(ObjectMissingError):
        return _put_manifest(store, claim.landing_key)
    return None


def read_manifest(store: ObjectStore, range_key: layout.RangeKey) -> Manifest:
    """The stored manifest of a range. Raises ObjectMissingError."""
    return msgspec.json.decode(store.get(layout.manifest_key(*range_key)), type=Manifest)


def list_manifests(store: ObjectStore, known: Collection[layout.RangeKey] = frozenset()) -> list[Manifest]:
    """Every manifest whose range is not in `known`, in key order.

    History comes from the catalogue; only what is beyond it is listed and read one by one.
    """
    return _manifests(store, catalogue.newest_generation(store), known)


def day_manifests(
    store: ObjectStore, feed: str, day: date, known: Collection[layout.RangeKey] = frozenset()
) -> list[Manifest]:
    """Manifests of a feed's ranges that were claimed on a day (UTC) and are not `known`, in key order."""
    manifests = _manifests(
        store,
        catalogue.newest_generation(store),
        known,
        wanted=lambda segment: day in segment.days.get(feed, ()),
    )
    return [m for m in manifests if m.feed == feed and m.ingested_at.date() == day]


def list_claims(store: ObjectStore) -> list[Claim]:
    """Every claim of every stream, in key order. For reconciliation."""
    generation = catalogue.newest_generation(store)
    decoder = msgspec.json.Decoder(Claim)
    rolled = (decoder.decode(found.claim) for found in catalogue.rolled_ranges(store, generation))
    tail = store.get_many(catalogue.tail_keys(store, layout.CLAIMS, generation))
    return sorted([*rolled, *map(decoder.decode, tail)], key=lambda claim: claim.range_key)


def chain_end(store: ObjectStore, stream_id: str, partition: int) -> int:
    """Where a partition's claim chain ends, i.e. where the next claim starts; 0 without any claim.

    A claim is only ever placed at the end of the one before, so the last one tells;
    `verify_chain` is the full check. Nothing before the catalogue's frontier is listed.
    """
    position = _position(store, stream_id, partition)
    last = max(_starts(store, layout.claim_key, stream_id, partition, position), default=None)
    return position if last is None else read_claim(store, (stream_id, partition, last)).end


def landed_end(store: ObjectStore, stream_id: str, partition: int) -> int:
    """Up to where a partition is landed: the end of its last manifest, 0 without any.

    Claims are finished in order, so everything before is landed as well.
    """
    position = _position(store, stream_id, partition)
    last = max(_starts(store, layout.manifest_key, stream_id, partition, position), default=None)
    return position if last is None else read_manifest(store, (stream_id, partition, last)).end


def open_claims(store: ObjectStore, stream_id: str, partition: int) -> list[Claim]:
    """Claims of a partition that have no manifest yet, in order: what recovery has to finish."""
    position = _position(store, stream_id, partition)
    finished = {*_starts(store, layout.manifest_key, stream_id, partition, position)}
    starts = _starts(store, layout.claim_key, stream_id, partition, position)
    return [read_claim(store, (stream_id, partition, start)) for start in starts if start not in finished]


def open_claims_of_streams(store: ObjectStore, stream_prefix: str) -> list[Claim]:
    """Claims without a manifest of all streams whose id starts with a prefix, in key order."""
    generation = catalogue.newest_generation(store)
    finished, claimed = (
        [layout.range_of(key) for key in catalogue.tail_keys(store, root, generation, stream_prefix)]
        for root in (layout.MANIFESTS, layout.CLAIMS)
    )
    done = {*finished}
    return [read_claim(store, range_key) for range_key in claimed if range_key not in done]


def _manifests(
    store: ObjectStore,
    generation: catalogue.Generation | None,
    known: Collection[layout.RangeKey] = frozenset(),
    wanted: Callable[[catalogue.Segment], bool] = lambda _: True,
) -> list[Manifest]:
    decoder = msgspec.json.Decoder(Manifest)
    rolled = catalogue.rolled_ranges(store, generation, known, wanted)
    tail = [
        key
        for key in catalogue.tail_keys(store, layout.MANIFESTS, generation)
        if layout.range_of(key) not in known
    ]
    found = [decoder.decode(data) for data in chain((r.manifest for r in rolled), store.get_many(tail))]
    return sorted(found, key=lambda manifest: manifest.range_key)


def _position(store: ObjectStore, stream_id: str, partition: int) -> int:
    """A position before which everything of a partition is landed."""
    generation = catalogue.newest_generation(store)
    return CHAIN_START if generation is None else generation.frontier(stream_id, partition)


def _starts(
    store: ObjectStore,
    key_of: Callable[[str, int, int], str],
    stream_id: str,
    partition: int,
    position: int,
) -> list[int]:
    """Starts of a partition's claims or manifests from a position on, in order."""
    prefix = key_of(stream_id, partition, 0).rpartition("/")[0] + "/"
    after = key_of(stream_id, partition, position - 1) if position else ""
    return [layout.range_of(info.key)[2] for info in store.list(prefix, after)]


def verify_chain(claims: Iterable[Claim]) -> None:
    """Raise ClaimChainError unless each partition's claims begin at 0 and follow one another."""
    for fault in chain_faults({claim.range_key: claim.end for claim in claims}):
        stream_id, partition, _ = fault.range_key
        raise ClaimChainError(f"{stream_id} partition {partition}: {fault.rule}: {fault.detail}")


def verify_law(manifest: Manifest) -> None:
    """Raise LandingLawError unless every offset of the range is a row, a reject, a consent drop or a gap."""
    _check_law(manifest, manifest.rows, manifest.rejected, manifest.consent_dropped, manifest.offset_gaps)


def parquet_bytes(table: pa.Table, metadata: dict[bytes, bytes] | None = None) -> bytes:
    """A table as one zstd Parquet file; `metadata` is added to the footer.

    Dictionaries only where values repeat, and decimals as integers: 1.8 instead of
    2.5 us of CPU and 105 instead of 119 bytes per telemetry row.
    """
    sink = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        sink,
        compression=COMPRESSION,
        use_dictionary=dictionary_columns(table.schema),
        store_decimal_as_integer=True,
    )
    return sink.getvalue()


def dictionary_columns(schema: pa.Schema) -> list[str]:
    """Columns of a landing schema whose values repeat: texts, but for payloads and ids, and the envelope."""
    return [
        field.name
        for field in schema
        if (pa.types.is_string(field.type) and field.name not in _DISTINCT_TEXTS)
        or field.name in FILLED_BY_CLAIM
    ]


def _check_law(
    bounds: Claim | Manifest, rows: int, rejected: int, consent_dropped: int, offset_gaps: int
) -> None:
    found = rows + rejected + consent_dropped + offset_gaps
    if found != bounds.end - bounds.start or min(rows, rejected, consent_dropped, offset_gaps) < 0:
        raise LandingLawError(
            f"{bounds.stream_id} partition {bounds.partition} [{bounds.start}, {bounds.end}): "
            f"{rows} rows + {rejected} rejected + {consent_dropped} dropped for consent + "
            f"{offset_gaps} offset gaps = {found}, not {bounds.end - bounds.start}"
        )


def _drops_by_reason(claim: Claim, dropped: int, by_reason: Mapping[str, int] | None) -> dict[str, int]:
    if by_reason is None:
        return {}
    if sum(by_reason.values()) != dropped:
        raise LandingLawError(
            f"{claim.stream_id} partition {claim.partition} [{claim.start}, {claim.end}): {dropped} messages "
            f"dropped for consent, but their reasons add up to {sum(by_reason.values())}"
        )
    return dict(sorted(by_reason.items()))


def with_envelope(table: pa.Table, claim: Claim) -> pa.Table:
    """A range's table in its feed's schema, the envelope filled in from the claim.

    Raises LandingSchemaError naming the first column that is missing, null where it
    must not be, unknown, or of a type that does not fit.
    """
    constants = {
        "stream_id": claim.stream_id,
        "kafka_partition": claim.partition,
        "ingested_at": claim.claimed_at,
        "source_system": claim.source_system,
        "source_file": claim.landing_key,
    }
    schema = feed_schema(claim.feed)
    columns = []
    for field in schema:
        if field.name in constants:
            columns.append(pa.repeat(pa.scalar(constants[field.name], field.type), table.num_rows))
            continue
        if field.name not in table.column_names:
            raise LandingSchemaError(f"{claim.feed}: column '{field.name}' is missing from {claim.stream_id}")
        try:
            column = table[field.name].cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise LandingSchemaError(
                f"{claim.feed}: column '{field.name}' of {claim.stream_id} is {table[field.name].type}, "
                f"which does not fit {field.type}"
            ) from error
        if not field.nullable and column.null_count:
            raise LandingSchemaError(
                f"{claim.feed}: required column '{field.name}' of {claim.stream_id} is null "
                f"in {column.null_count} rows"
            )
        columns.append(column)
    unknown = set(table.column_names) - set(schema.names)
    if unknown:
        raise LandingSchemaError(
            f"{claim.feed}: {claim.stream_id} has columns its contract does not name: {sorted(unknown)}"
        )
    return pa.Table.from_arrays(columns, schema=schema)


def _put_rejects(store: ObjectStore, claim: Claim, rejects: pa.Table) -> str:
    data = parquet_bytes(rejects.cast(REJECT_SCHEMA))
    key = layout.reject_key(claim.feed, *claim.range_key, hashlib.sha256(data).hexdigest())
    with contextlib.suppress(ObjectExistsError):  # The name is the content's hash: the same rejects.
        store.put_new(key, data)
    return key


def _put_manifest(store: ObjectStore, source_file: str) -> Manifest:
    manifest = derive_manifest(source_file, store.get(source_file))
    try:
        store.put_new(layout.manifest_key(*manifest.range_key), msgspec.json.encode(manifest))
    except ObjectExistsError:
        return read_manifest(store, manifest.range_key)
    return manifest


def derive_manifest(source_file: str, data: bytes) -> Manifest:
    """The manifest of a stored main object, from its bytes alone.

    Raises LandingError for an object that does not carry this platform's footer.
    """
    metadata = pq.read_metadata(pa.BufferReader(data))
    footer = _read_footer(source_file, metadata.metadata or {})
    claim = footer.claim
    min_event_ts, max_event_ts = _column_bounds(metadata, "event_ts")
    min_arrival_ts, max_arrival_ts = _column_bounds(metadata, "arrival_ts")
    manifest = Manifest(
        stream_id=claim.stream_id,
        partition=claim.partition,
        start=claim.start,
        end=claim.end,
        feed=claim.feed,
        source_system=claim.source_system,
        source_file=source_file,
        rows=metadata.num_rows,
        rejected_by_reason=footer.rejected_by_reason,
        consent_dropped=footer.consent_dropped,
        offset_gaps=footer.offset_gaps,
        rows_by_event_date=footer.rows_by_event_date,
        min_event_ts=min_event_ts,
        max_event_ts=max_event_ts,
        min_arrival_ts=min_arrival_ts,
        max_arrival_ts=max_arrival_ts,
        ingested_at=claim.claimed_at,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        schema_version=footer.schema_version,
        decoder=claim.decoder,
        consent_snapshot_id=claim.consent_snapshot_id,
        gap_reason=claim.gap_reason,
        reject_object=footer.reject_object,
        extract_id=claim.extract_id,
        complete=claim.complete,
        extracted_at=claim.extracted_at,
        consent_dropped_by_reason=footer.consent_dropped_by_reason,
    )
    verify_law(manifest)
    return manifest


def claim_in(source_file: str, metadata: Mapping[bytes, bytes]) -> Claim:
    """The claim of a range, from the metadata of its main object or of one that replaced it.

    Raises LandingError for an object that does not carry this platform's footer.
    """
    return _read_footer(source_file, metadata).claim


def _read_footer(source_file: str, metadata: Mapping[bytes, bytes]) -> _Footer:
    raw = metadata.get(FOOTER_KEY)
    if raw is None:
        raise LandingError(f"{source_file} has no '{FOOTER_KEY.decode()}' footer: nothing of this platform's")
    return msgspec.json.decode(raw, type=_Footer)


def _column_bounds(metadata: Any, name: str) -> tuple[datetime | None, datetime | None]:
    index = next((i for i in range(metadata.num_columns) if metadata.schema.column(i).name == name), None)
    if index is None:
        return None, None
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    statistics = [group.column(index).statistics for group in groups if group.num_rows]
    if not statistics:
        return None, None
    return min(s.min for s in statistics), max(s.max for s in statistics)


def _rows_by_event_date(table: pa.Table) -> dict[str, int]:
    if "event_ts" not in table.column_names:
        return {}
    return _count_by(pc.cast(pc.floor_temporal(table["event_ts"], unit="day"), pa.date32()))


def _count_by(column: pa.ChunkedArray) -> dict[str, int]:
    counted = pc.value_counts(column).to_pylist()

    def text(value: date | str) -> str:
        return value if isinstance(value, str) else value.isoformat()

    return dict(sorted((text(item["values"]), item["counts"]) for item in counted))

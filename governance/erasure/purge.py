"""Deleting originals: every range that holds redacted rows gets an object without them, then loses its own.

The steps of one range, each create-only or a deletion, so that a purge that died
is finished by the next and several at once do no harm:

1. what has to stay of the redacted rows (`contracts.keeping`), put aside where no reader looks, and the
   replacement, both under names with their content's hash;
2. the proof: read back, it is the original less exactly the redacted rows, and what was put aside is exactly what stays;
3. the pointer, which puts it in force for every reader;
4. the deletion of what it stands for, here or by whoever finds it later;
5. the audit record.

What was put aside is deleted when its term is over, and audited.

Dead letters are redacted in the same steps: they keep their row and lose the
payload. Those older than their retention are deleted altogether.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.columns import REJECT_SCHEMA
from contracts.registry import TELEMETRY_FEED
from lake import layout
from lake.landed import received_within, scan
from lake.landing import FOOTER_KEY, Manifest, feed_schema, parquet_bytes, read_claim
from lake.layout import RangeKey
from lake.redactions import Redactions, arrival_us, load_redactions
from lake.replacements import Replacement, Replacements, StoredObject, load_replacements
from lake.store import ObjectExistsError, ObjectMissingError, ObjectStore


class PurgeError(Exception):
    """A range could not be purged; its original is in place and in force."""


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """That objects were deleted and what stands for them. It names ranges, entries, counts and hashes:
    nothing of a person, a pet or a device."""

    stream_id: str
    partition: int
    start: int
    end: int
    number: int
    feed: str
    redaction_ids: tuple[str, ...]
    redacted_rows: int
    cleared_payloads: int
    deleted: list[StoredObject]
    in_force: list[StoredObject]
    replaced_at: datetime
    deleted_at: datetime
    kept: list[StoredObject] = []


class KeptAudit(msgspec.Struct, frozen=True, kw_only=True):
    """That rows which had to stay were deleted at the end of their term. It names nobody."""

    redaction_id: str
    feed: str
    until: date
    deleted: StoredObject
    deleted_at: datetime


@dataclass(frozen=True)
class PurgeReport:
    """What a purge did, or would do: ranges and rows replaced, those of the rows that were put aside because they have
    to stay, payloads cleared, objects deleted, dead letters deleted because of their age, files of kept rows whose
    term is over, audit records written."""

    ranges: int = 0
    redacted_rows: int = 0
    kept_rows: int = 0
    cleared_payloads: int = 0
    deleted_objects: int = 0
    expired_rejects: int = 0
    expired_kept: int = 0
    audits: int = 0
    rows_by_feed: dict[str, int] = field(default_factory=dict)


def purge(
    store: ObjectStore,
    manifests: Sequence[Manifest],
    now: datetime,
    rejects_days: int,
    dry_run: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> PurgeReport:
    """Replace every landed object that holds redacted rows, delete what is superseded or past its retention.

    Raises PurgeError when a replacement does not prove right; nothing of that range is deleted then.
    """
    redactions, replacements = load_redactions(store), load_replacements(store)
    report = PurgeReport()
    if redactions:
        by_key = {m.range_key: m for m in manifests}
        for range_key in ranges_to_purge(store, manifests, redactions, replacements):
            planned = _replace(store, by_key[range_key], redactions, replacements, now, dry_run)
            if planned is not None:
                report = _added(report, planned)
                progress(
                    f"{planned.feed}: {planned.redacted_rows:,} of {planned.before.rows:,} rows redacted in "
                    f"{planned.before.key}"
                )
    if not dry_run:
        replacements = load_replacements(store)
    deleted, audits = _finish(store, manifests, redactions, replacements, now, dry_run)
    expired = expired_rejects(store, now, rejects_days)
    over = expired_kept(store, now)
    if not dry_run:
        for key in [*expired, *over]:
            store.delete(key)
        audits += _audit_kept(store, replacements, now)
    # In a dry run the originals of the planned replacements are still in force and not listed as superseded.
    planned_deletions = report.deleted_objects if dry_run else 0
    return replace(
        report,
        deleted_objects=deleted + planned_deletions,
        expired_rejects=len(expired),
        expired_kept=len(over),
        audits=audits,
    )


def ranges_to_purge(
    store: ObjectStore, manifests: Iterable[Manifest], redactions: Redactions, replacements: Replacements
) -> list[RangeKey]:
    """Ranges whose object in force holds redacted rows, or whose dead letters mention a redacted device."""
    found: set[RangeKey] = set()
    stretches = [(low, high) for _, low, high in redactions.arrivals]
    by_columns: dict[tuple[str, ...], dict[str, Manifest]] = {}
    for manifest in manifests:
        if not manifest.rows or not redactions.covers_feed(manifest.feed):
            continue
        if manifest.feed == TELEMETRY_FEED and not received_within(manifest, stretches):
            continue
        columns = tuple(redactions.columns(manifest.feed, feed_schema(manifest.feed).names))
        by_columns.setdefault(columns, {})[replacements.main_object_of(manifest)] = manifest
    for columns, by_key in by_columns.items():
        feed = next(iter(by_key.values())).feed
        for key, table in scan(store, by_key, columns, redactions.filter(feed)):
            if redactions.rows(by_key[key].feed, table).any():
                found.add(by_key[key].range_key)
    if redactions.arrivals:
        with_rejects = {
            letters: m for m in manifests if (letters := replacements.reject_object_of(m)) is not None
        }
        present = {info.key for info in store.list(layout.REJECTS)}
        for reject_key in sorted(with_rejects.keys() & present):
            rejects = pq.read_table(pa.BufferReader(store.get(reject_key)))
            if mentions(redactions, rejects).any():
                found.add(with_rejects[reject_key].range_key)
    return sorted(found)


def mentions(redactions: Redactions, rejects: pa.Table) -> npt.NDArray[np.bool_]:
    """Which dead letters have a payload in which the id of a device occurs that was redacted when they came."""
    moments = arrival_us(rejects)
    found = np.zeros(rejects.num_rows, np.bool_)
    if not rejects.num_rows:
        return found
    first, last = int(moments.min()), int(moments.max())
    near = [
        (device_id.encode(), low, high)
        for device_id, low, high in redactions.arrivals
        if low <= last and first < high
    ]
    for position, payload in enumerate(rejects["payload"].to_pylist()):
        if payload:
            moment = moments[position]
            found[position] = any(low <= moment < high and device in payload for device, low, high in near)
    return found


def expired_rejects(store: ObjectStore, now: datetime, rejects_days: int) -> list[str]:
    """Keys of dead letters whose range was claimed longer ago than they may be kept."""
    oldest = now - timedelta(days=rejects_days)
    expired = []
    for info in store.list(layout.REJECTS):
        with contextlib.suppress(ObjectMissingError, layout.LayoutError):
            if read_claim(store, layout.range_of_reject(info.key)).claimed_at < oldest:
                expired.append(info.key)
    return expired


def expired_kept(store: ObjectStore, now: datetime) -> list[str]:
    """Keys of rows put aside that need not be kept any more, whether an entry or a pointer still says of them."""
    return [info.key for info in store.list(layout.KEPT) if layout.kept_of(info.key)[1] <= now.date()]


def _audit_kept(store: ObjectStore, replacements: Replacements, now: datetime) -> int:
    """The audit records that are missing of rows put aside whose term is over; how many."""
    over = {
        layout.kept_audit_key(stored.sha256): (stored, pointer.feed)
        for pointer in replacements
        for stored in pointer.kept
        if layout.kept_of(stored.key)[1] <= now.date()
    }
    missing = over.keys() - {info.key for info in store.list(layout.REDACTION_AUDIT)} if over else set()
    for key in sorted(missing):
        stored, feed = over[key]
        _, until, redaction_id = layout.kept_of(stored.key)
        audit = KeptAudit(redaction_id=redaction_id, feed=feed, until=until, deleted=stored, deleted_at=now)
        _put(store, key, msgspec.json.encode(audit))
    return len(missing)


def _replace(
    store: ObjectStore,
    manifest: Manifest,
    redactions: Redactions,
    replacements: Replacements,
    now: datetime,
    dry_run: bool,
) -> Replacement | None:
    """Steps 1 to 3 of one range; None when another purge came first."""
    number = replacements.next_number(manifest.range_key)
    before = replacements.stored_object_of(manifest)
    try:
        data = store.get(before.key)
    except ObjectMissingError:
        _refuse_a_loss(store, manifest, number)
        return None
    # In the schema it was landed with: a replacement is of the same release.
    original = pq.read_table(pa.BufferReader(data))
    covered = redactions.rows(manifest.feed, original)
    after, main = before, b""
    if covered.any():
        kept = original.filter(pa.array(~covered))
        main = parquet_bytes(kept, {FOOTER_KEY: _footer(data)})
        sha256 = hashlib.sha256(main).hexdigest()
        key = layout.redacted_key(
            manifest.feed,
            manifest.stream_id,
            manifest.partition,
            manifest.start,
            manifest.end,
            number,
            sha256,
        )
        after = StoredObject(key, sha256, kept.num_rows, len(main))
    aside = _put_aside(manifest, original, redactions, now, _footer(data)) if covered.any() else {}
    rejects_before, rejects_after, rejects, cleared = _cleared_rejects(
        store, manifest, redactions, replacements
    )
    if after == before and not cleared:
        return None
    pointer = Replacement(
        stream_id=manifest.stream_id,
        partition=manifest.partition,
        start=manifest.start,
        end=manifest.end,
        number=number,
        feed=manifest.feed,
        redaction_ids=redactions.ids,
        replaced_at=now,
        before=before,
        after=after,
        redacted_rows=int(np.count_nonzero(covered)),
        rejects_before=rejects_before,
        rejects_after=rejects_after,
        cleared_payloads=cleared,
        kept=[*aside],
    )
    if dry_run:
        return pointer
    for stored, content in aside.items():
        _put(store, stored.key, content)
        _prove_kept(store, stored)
    if after != before:
        _put(store, after.key, main)
        _prove(store, pointer, original, covered, redactions)
    if rejects_after is not None and rejects_after != rejects_before:
        _put(store, rejects_after.key, rejects)
        _prove_rejects(store, rejects_after, redactions)
    try:
        store.put_new(layout.replacement_key(*manifest.range_key, number), msgspec.json.encode(pointer))
    except ObjectExistsError:
        return None
    return pointer


def _put_aside(
    manifest: Manifest, original: pa.Table, redactions: Redactions, now: datetime, footer: bytes
) -> dict[StoredObject, bytes]:
    """Files of the redacted rows that have to stay, one for each entry and term, and their contents."""
    files = {}
    for (redaction_id, until), stays in sorted(redactions.kept(manifest.feed, original, now).items()):
        rows = original.filter(pa.array(stays))
        content = parquet_bytes(rows, {FOOTER_KEY: footer})
        sha256 = hashlib.sha256(content).hexdigest()
        key = layout.kept_key(
            manifest.feed,
            until,
            redaction_id,
            manifest.stream_id,
            manifest.partition,
            manifest.start,
            manifest.end,
            sha256,
        )
        files[StoredObject(key, sha256, rows.num_rows, len(content))] = content
    return files


def _refuse_a_loss(store: ObjectStore, manifest: Manifest, number: int) -> None:
    """An object in force may only be gone because a later pointer took its place."""
    if load_replacements(store).next_number(manifest.range_key) <= number:
        raise PurgeError(
            f"{manifest.source_file} (or what stands for it) is missing from {store.url}; "
            "restore it from the lake's backup and run again"
        )


def _cleared_rejects(
    store: ObjectStore, manifest: Manifest, redactions: Redactions, replacements: Replacements
) -> tuple[StoredObject | None, StoredObject | None, bytes, int]:
    """The range's dead letters before and after, the new content, and how many lose their payload."""
    key = replacements.reject_object_of(manifest)
    if key is None:
        return None, None, b"", 0
    try:
        data = store.get(key)
    except ObjectMissingError:  # Past its retention.
        return None, None, b"", 0
    table = pq.read_table(pa.BufferReader(data), schema=REJECT_SCHEMA)
    named = mentions(redactions, table)
    before = StoredObject(key, hashlib.sha256(data).hexdigest(), table.num_rows, len(data))
    if not named.any():
        return before, before, b"", 0
    payloads = [
        None if gone else payload
        for payload, gone in zip(table["payload"].to_pylist(), named.tolist(), strict=True)
    ]
    position = table.column_names.index("payload")
    fresh = parquet_bytes(
        table.set_column(position, REJECT_SCHEMA.field("payload"), pa.array(payloads, pa.binary()))
    )
    sha256 = hashlib.sha256(fresh).hexdigest()
    after = StoredObject(
        layout.reject_key(manifest.feed, *manifest.range_key, sha256), sha256, table.num_rows, len(fresh)
    )
    return before, after, fresh, int(np.count_nonzero(named))


def _prove(
    store: ObjectStore,
    pointer: Replacement,
    original: pa.Table,
    covered: npt.NDArray[np.bool_],
    redactions: Redactions,
) -> None:
    """Rows before = rows after + redacted, every kept row as it was, no redacted one among them."""
    data = store.get(pointer.after.key)
    stored = pq.read_table(pa.BufferReader(data), schema=original.schema)
    kept = original.filter(pa.array(~covered))
    if (
        hashlib.sha256(data).hexdigest() != pointer.after.sha256
        or original.num_rows != pointer.before.rows
        or pointer.before.rows != stored.num_rows + pointer.redacted_rows
        or not stored.equals(kept)
        or redactions.rows(pointer.feed, stored).any()
    ):
        raise PurgeError(
            f"{pointer.after.key} is not {pointer.before.key} ({original.num_rows} rows) without "
            f"{pointer.redacted_rows} redacted rows: it has {stored.num_rows}. Nothing was deleted; "
            "compare the original's sha256 with its manifest"
        )


def _prove_kept(store: ObjectStore, stored: StoredObject) -> None:
    if hashlib.sha256(store.get(stored.key)).hexdigest() != stored.sha256:
        raise PurgeError(
            f"{stored.key} is not what was to be put aside of its range; nothing was deleted. Delete it, run again"
        )


def _prove_rejects(store: ObjectStore, after: StoredObject, redactions: Redactions) -> None:
    stored = pq.read_table(pa.BufferReader(store.get(after.key)))
    if stored.num_rows != after.rows or mentions(redactions, stored).any():
        raise PurgeError(f"{after.key} still names a redacted device; nothing was deleted")


def _put(store: ObjectStore, key: str, data: bytes) -> None:
    with contextlib.suppress(ObjectExistsError):  # The name is the content's hash: the same content.
        store.put_new(key, data)


def _finish(
    store: ObjectStore,
    manifests: Sequence[Manifest],
    redactions: Redactions,
    replacements: Replacements,
    now: datetime,
    dry_run: bool,
) -> tuple[int, int]:
    """Steps 4 and 5 of every range, and objects that purges which came second left; (deleted, audits)."""
    present = {
        info.key for root in (layout.LANDING, layout.REDACTED, layout.REJECTS) for info in store.list(root)
    }
    audited = {info.key for info in store.list(layout.REDACTION_AUDIT)}
    deleted = audits = 0
    gone = leftover_keys(present, replacements)
    gone |= unused_rejects(store, present, manifests, redactions, replacements)
    for key in sorted(gone):
        deleted += 1
        if not dry_run:
            store.delete(key)
    for pointer in replacements:
        key = layout.audit_key(*pointer.range_key, pointer.number)
        if key in audited or dry_run:
            continue
        in_force = [stored for stored in (pointer.after, pointer.rejects_after) if stored is not None]
        audit = Audit(
            stream_id=pointer.stream_id,
            partition=pointer.partition,
            start=pointer.start,
            end=pointer.end,
            number=pointer.number,
            feed=pointer.feed,
            redaction_ids=pointer.redaction_ids,
            redacted_rows=pointer.redacted_rows,
            cleared_payloads=pointer.cleared_payloads,
            deleted=pointer.superseded(),
            in_force=in_force,
            replaced_at=pointer.replaced_at,
            deleted_at=now,
            kept=pointer.kept,
        )
        with contextlib.suppress(ObjectExistsError):
            store.put_new(key, msgspec.json.encode(audit))
            audits += 1
    return deleted, audits


def leftover_keys(present: Iterable[str], replacements: Replacements) -> set[str]:
    """Objects that must not be there: those superseded (a zombie may put one again), and replacements
    whose number another object holds."""
    superseded = replacements.superseded_keys()
    found = set()
    for key in present:
        if key in superseded:
            found.add(key)
        elif key.startswith(layout.REDACTED):
            range_key, number = layout.redacted_of(key)
            pointers = replacements.by_range.get(range_key, [])
            # Before its pointer is put a replacement may still be on its way into force.
            if number < len(pointers) and key not in {p.after.key for p in pointers}:
                found.add(key)
    return found


def unused_rejects(
    store: ObjectStore,
    present: Iterable[str],
    manifests: Iterable[Manifest],
    redactions: Redactions,
    replacements: Replacements,
) -> set[str]:
    """Dead letters that no finished range refers to (a landing that came second left them) and that
    mention a redacted device."""
    if not redactions.arrivals:
        return set()
    finished = {m.range_key: replacements.reject_object_of(m) for m in manifests}
    found = set()
    for key in present:
        if not key.startswith(layout.REJECTS):
            continue
        range_key = layout.range_of_reject(key)
        if range_key in finished and finished[range_key] != key:
            with contextlib.suppress(ObjectMissingError):
                table = pq.read_table(pa.BufferReader(store.get(key)))
                if mentions(redactions, table).any():
                    found.add(key)
    return found


def _footer(data: bytes) -> bytes:
    metadata = pq.read_metadata(pa.BufferReader(data)).metadata or {}
    return metadata[FOOTER_KEY]


def _added(report: PurgeReport, pointer: Replacement) -> PurgeReport:
    by_feed = {**report.rows_by_feed}
    by_feed[pointer.feed] = by_feed.get(pointer.feed, 0) + pointer.redacted_rows
    return replace(
        report,
        ranges=report.ranges + 1,
        redacted_rows=report.redacted_rows + pointer.redacted_rows,
        kept_rows=report.kept_rows + sum(stored.rows for stored in pointer.kept),
        cleared_payloads=report.cleared_payloads + pointer.cleared_payloads,
        deleted_objects=report.deleted_objects + len(pointer.superseded()),
        rows_by_feed=by_feed,
    )

"""Claims, manifests, ledger and raw tables held against each other, range by range.

The law of the landing protocol: in every range rows + rejected + dropped by
consent + offset gaps = end - start; claims begin at 0 and follow each other;
every claim has its manifest, every manifest its ledger entry, every ledger
entry its rows but for the redacted and quarantined ones, each offset once. Nothing is repaired here.
Ranges that an earlier reconciliation vouched for can be left out, so that a night
costs its own ranges.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

    from lake.landing import Claim, Manifest

from contracts.registry import FEEDS
from lake.chains import chain_faults
from lake.layout import RangeKey
from lake.quarantine import NOTHING_QUARANTINED, Quarantine

# How long a claimed range may take to show its manifest while collectors run beside a load.
LANDING_GRACE = timedelta(seconds=60)


@dataclass(frozen=True)
class Finding:
    """One broken rule: which range (stream, partition, start offset), which rule, what was seen."""

    range_key: RangeKey
    rule: str
    detail: str


@dataclass(frozen=True)
class RawRange:
    """Ledger entry of a range, what its raw table holds of it, how many of its rows are redacted or quarantined."""

    end: int
    ledger_rows: int
    table_rows: int
    distinct_offsets: int
    redacted_rows: int = 0


@dataclass(frozen=True)
class Reconciliation:
    """Totals over all ranges and every finding; `passed` when there is none."""

    claims: int
    manifests: int
    ledger_ranges: int
    raw_rows: int
    redacted_rows: int
    pending: int
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return not self.findings


def reconcile(
    claims: Iterable[Claim],
    manifests: Iterable[Manifest],
    raw_ranges: dict[RangeKey, RawRange],
    orphan_rows: int,
    settled_before: datetime | None = None,
    vouched: AbstractSet[RangeKey] = frozenset(),
    quarantine: Quarantine = NOTHING_QUARANTINED,
) -> Reconciliation:
    """Compare the four records of the same ranges.

    `raw_ranges` comes from `read_raw_ranges`, as does `orphan_rows`, the raw
    rows of no ledger entry. Of ranges in `vouched` only the claims are looked at,
    as links of their chain; `manifests` and `raw_ranges` are without them. Where collectors land beside the load, ranges
    claimed at or after `settled_before` (naive UTC) may still be on their way
    and count as `pending`; None means that everything has to be there. What `quarantine`
    supersedes of a claim is no link of the chain.
    """
    claims, manifests = list(claims), list(manifests)
    pending = _pending(claims, raw_ranges, settled_before)
    ends = {c.range_key: c.end for c in claims if c.range_key not in pending}
    by_key = {m.range_key: m for m in manifests if m.range_key not in pending}
    findings = [
        *(
            finding
            for finding in chain_findings(quarantine.standing(claims))
            if finding.range_key not in pending
        ),
        *(finding for m in by_key.values() for finding in law_findings(m)),
        *(
            Finding(key, "claim without manifest", "the range was claimed and is not finished")
            for key in sorted(ends.keys() - by_key.keys() - vouched)
        ),
        *(
            Finding(key, "manifest without claim", by_key[key].source_file)
            for key in sorted(by_key.keys() - ends.keys())
        ),
        *(
            Finding(key, "manifest not loaded", by_key[key].source_file)
            for key in sorted(by_key.keys() - raw_ranges.keys())
        ),
        *(
            Finding(key, "ledger without manifest", "loaded from a range the lake does not know")
            for key in sorted(raw_ranges.keys() - by_key.keys())
        ),
    ]
    for key in sorted(by_key.keys() & raw_ranges.keys()):
        findings.extend(row_findings(key, by_key[key], raw_ranges[key]))
    if orphan_rows:
        findings.append(Finding(("", 0, 0), "raw rows outside the ledger", f"{orphan_rows} rows"))
    return Reconciliation(
        claims=len(ends),
        manifests=len(by_key),
        ledger_ranges=len(raw_ranges),
        raw_rows=sum(r.table_rows for r in raw_ranges.values()),
        redacted_rows=sum(r.redacted_rows for r in raw_ranges.values()),
        pending=len(pending),
        findings=tuple(findings),
    )


def _pending(
    claims: list[Claim], raw_ranges: dict[RangeKey, RawRange], settled_before: datetime | None
) -> set[RangeKey]:
    if settled_before is None:
        return set()
    return {c.range_key for c in claims if c.claimed_at >= settled_before and c.range_key not in raw_ranges}


def chain_findings(claims: Iterable[Claim]) -> list[Finding]:
    """Claims that are not where the chain of their partition ends, ranges on their way included as its links."""
    return [
        Finding(fault.range_key, fault.rule, fault.detail)
        for fault in chain_faults({claim.range_key: claim.end for claim in claims})
    ]


def law_findings(manifest: Manifest) -> list[Finding]:
    """rows + rejected + consent_dropped + offset_gaps = end - start, or why not."""
    total = manifest.rows + manifest.rejected + manifest.consent_dropped + manifest.offset_gaps
    if total == manifest.end - manifest.start:
        return []
    detail = (
        f"rows {manifest.rows} + rejected {manifest.rejected} + consent_dropped {manifest.consent_dropped}"
        f" + offset_gaps {manifest.offset_gaps} is not {manifest.end} - {manifest.start}"
    )
    return [Finding(manifest.range_key, "law of the range", detail)]


def row_findings(key: RangeKey, manifest: Manifest, raw: RawRange) -> list[Finding]:
    """Where manifest, ledger and table disagree on one range."""
    findings = []
    if raw.end != manifest.end:
        findings.append(Finding(key, "range end", f"ledger {raw.end}, manifest {manifest.end}"))
    if not raw.ledger_rows == raw.table_rows + raw.redacted_rows == manifest.rows:
        detail = (
            f"manifest {manifest.rows}, ledger {raw.ledger_rows}, table {raw.table_rows},"
            f" redacted {raw.redacted_rows}"
        )
        findings.append(Finding(key, "rows", detail))
    if raw.distinct_offsets != raw.table_rows:
        detail = f"{raw.table_rows} rows, {raw.distinct_offsets} offsets"
        findings.append(Finding(key, "offset twice", detail))
    return findings


_TABLE_FILES = """
    create or replace temp table table_files (
        feed varchar, stream_id varchar, kafka_partition integer, source_file varchar,
        row_count bigint, offset_count bigint, min_offset bigint, max_offset bigint
    )
"""

# Offsets that may be told apart at once, each a bit: 128 MiB.
OFFSETS_AT_ONCE = 2**30


def _count_files(
    con: duckdb.DuckDBPyConnection, feed: str, since_seq: int, claimed_from: datetime | None
) -> None:
    """Rows and distinct offsets of each landed file of a feed into `table_files`.

    The offsets of a file lie within a range of the ledger, so none of the remainders by the widest range are the
    same and each sets a bit of its own. `count(distinct)` took 15 times as long over 144 million rows, and memory
    that grows with them; bits take what the ranges are wide, in as many passes as that needs.
    """
    [(width,)] = con.execute(
        "select greatest(coalesce(max(end_offset - start_offset), 1), 1) from raw.load_history"
        " where feed = ? and row_count > 0",
        [feed],
    ).fetchall()
    loaded = con.execute(
        "select distinct source_file from raw.load_history where feed = ? and load_seq > ? order by all",
        [feed, since_seq],
    ).fetchall()
    at_once = max(1, OFFSETS_AT_ONCE // width)
    edges = [source_file for (source_file,) in loaded[at_once::at_once]]
    for low, high in zip([None, *edges], [*edges, None], strict=True):
        bounds = {"ingested_at >= ?": claimed_from, "source_file >= ?": low, "source_file < ?": high}
        given = {condition: value for condition, value in bounds.items() if value is not None}
        con.execute(
            f"""
            insert into temp.table_files
            select
                '{feed}', stream_id, kafka_partition, source_file, count(*),
                bit_count(bitstring_agg(kafka_offset % {width}, 0, {width - 1})),
                min(kafka_offset), max(kafka_offset)
            from raw.{feed}
            where {" and ".join(["true", *given])}
            group by all
            """,
            [*given.values()],
        )


def read_raw_ranges(
    con: duckdb.DuckDBPyConnection, since_seq: int = 0, claimed_from: datetime | None = None
) -> tuple[dict[RangeKey, RawRange], int]:
    """Every ledger entry of a load after `since_seq` with what its table holds of it, and how many rows are of none.

    Of the tables only rows of ranges claimed at or after `claimed_from` (naive UTC) are
    read; it has to lie at or before the claims of those loads. Rows of no entry are
    counted without reading any: what the tables hold beyond the ledger, less what the
    ranges that were read explain; negative when rows of an older range are gone. A range
    has one main object, so its distinct offsets are those of one source file: rows that
    came under a second name repeat them.
    """
    con.execute(_TABLE_FILES)
    for feed in FEEDS:
        _count_files(con, feed, since_seq, claimed_from)
    rows = con.execute(
        """
        with files as (
            select *, source_file in (select source_file from raw.load_history) as is_known
            from temp.table_files
        )
        select
            l.stream_id, l.kafka_partition, l.start_offset, l.end_offset, l.row_count as ledger_rows,
            coalesce(sum(f.row_count), 0)::bigint as table_rows,
            coalesce(max(f.offset_count), 0)::bigint as offset_count,
            coalesce(max(r.redacted_count + coalesce(r.quarantined_count, 0)), 0)::bigint as redacted_rows,
            max(l.load_seq) as load_seq
        from raw.load_history as l
        left join raw.redacted_ranges as r
            on r.stream_id = l.stream_id and r.kafka_partition = l.kafka_partition
            and r.start_offset = l.start_offset
        full outer join files as f
            on f.feed = l.feed and f.stream_id = l.stream_id
            and f.kafka_partition = l.kafka_partition
            and f.min_offset >= l.start_offset and f.max_offset < l.end_offset
            and (f.source_file = l.source_file or not f.is_known)
        group by all
        """
    ).fetchall()
    ranges = {
        (r[0], r[1], r[2]): RawRange(r[3], r[4], r[5], r[6], r[7])
        for r in rows
        if r[0] is not None and r[8] > since_seq
    }
    explained = sum(r.table_rows + r.redacted_rows - r.ledger_rows for r in ranges.values())
    return ranges, _rows_beyond_the_ledger(con) - explained


def _rows_beyond_the_ledger(con: duckdb.DuckDBPyConnection) -> int:
    """Rows of all raw tables and redacted ones, less those that the ledger counts."""
    held = " + ".join(f"(select count(*) from raw.{feed})" for feed in FEEDS)
    [(surplus,)] = con.execute(
        f"select {held}"
        " + (select coalesce(sum(redacted_count + coalesce(quarantined_count, 0)), 0) from raw.redacted_ranges)"
        " - (select coalesce(sum(row_count), 0) from raw.load_history)"
    ).fetchall()
    return int(surplus)

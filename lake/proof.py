"""Proof that two sets of telemetry files hold the same rows, whatever their order and layout.

By content: per landed range (`source_file`) the number of rows and the sum of two
64-bit hashes over every column. By key: no (stream, partition, offset) on one
side only, none twice. What is left out on purpose is said by redactions and the quarantine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from contracts.columns import TELEMETRY_SCHEMA
from lake.quarantine import QuarantinedOffsets

if TYPE_CHECKING:
    import duckdb

EXAMPLES = 10

_KEY = "stream_id, kafka_partition, kafka_offset"


class RedactedArrivals(Protocol):
    """Rows of one device received in `[from_us, to_us)` (epoch microseconds) are to be left out.

    `redaction_id` names the ledger's entry that says so; an entry may name several.
    """

    @property
    def redaction_id(self) -> str: ...
    @property
    def device_id(self) -> str: ...
    @property
    def from_us(self) -> int: ...
    @property
    def to_us(self) -> int: ...


LeftOut = RedactedArrivals | QuarantinedOffsets
"""What one entry of either ledger says is to be left out."""


class RowsDifferError(Exception):
    """Files that have to hold the same rows do not; the message names the first ranges and keys."""


@dataclass(frozen=True)
class Proof:
    """What a comparison saw: `rows_before` = `rows_after` + `redacted_rows` when nothing differs.

    `redacted_by_file` counts per landing file; `differences` is empty when both sides are equal.
    """

    rows_before: int
    rows_after: int
    redacted_by_file: dict[str, int] = field(default_factory=dict)
    differences: tuple[str, ...] = ()

    @property
    def redacted_rows(self) -> int:
        return sum(self.redacted_by_file.values())

    @property
    def passed(self) -> bool:
        return not self.differences and self.rows_before == self.rows_after + self.redacted_rows


def prove_same_rows(
    con: duckdb.DuckDBPyConnection, before: str, after: str, redactions: Sequence[LeftOut] = ()
) -> Proof:
    """Compare two queries over the contract's columns; `before` still holds what `redactions` leave out."""
    kept, redacted = redaction_sql(con, before, redactions)
    redacted_by_file = dict(
        con.execute(f"select source_file, count(*) from ({redacted}) group by all").fetchall()
    )
    expected, found = _digests(con, kept), _digests(con, after)
    differences = _digest_differences(expected, found)
    differences += _key_differences(con, kept, after)
    return Proof(
        rows_before=sum(count for count, *_ in expected.values()) + sum(redacted_by_file.values()),
        rows_after=sum(count for count, *_ in found.values()),
        redacted_by_file=redacted_by_file,
        differences=tuple(differences),
    )


def redaction_sql(
    con: duckdb.DuckDBPyConnection, rows: str, redactions: Sequence[LeftOut]
) -> tuple[str, str]:
    """A query's rows that stay and those that redactions and the quarantine leave out, as two queries."""
    if not redactions:
        return rows, f"from ({rows}) where false"
    import pyarrow as pa

    arrivals = [one for one in redactions if not isinstance(one, QuarantinedOffsets)]
    spans = [one.span for one in redactions if isinstance(one, QuarantinedOffsets)]
    tables = {
        "redactions": pa.table(
            {
                "device_id": pa.array([r.device_id for r in arrivals], pa.string()),
                "from_us": pa.array([r.from_us for r in arrivals], pa.int64()),
                "to_us": pa.array([r.to_us for r in arrivals], pa.int64()),
            }
        ),
        "quarantined": pa.table(
            {
                "stream_id": pa.array([span.stream_id for span in spans], pa.string()),
                "kafka_partition": pa.array([span.partition for span in spans], pa.int32()),
                "start_offset": pa.array([span.start for span in spans], pa.int64()),
                "end_offset": pa.array([span.end for span in spans], pa.int64()),
                "source_file": pa.array([span.source_file for span in spans], pa.string()),
            }
        ),
    }
    for name, table in tables.items():
        con.register(f"given_{name}", table)
        con.execute(f"create or replace temp table {name} as from given_{name}")
        con.unregister(f"given_{name}")
    matched = (
        "exists (select 1 from redactions as gone where gone.device_id = found.device_id"
        " and epoch_us(found.arrival_ts) >= gone.from_us and epoch_us(found.arrival_ts) < gone.to_us)"
        " or exists (select 1 from quarantined as span where span.stream_id = found.stream_id"
        " and span.kafka_partition = found.kafka_partition"
        " and found.kafka_offset >= span.start_offset and found.kafka_offset < span.end_offset"
        " and coalesce(span.source_file = found.source_file, true))"
    )
    return f"from ({rows}) as found where not ({matched})", f"from ({rows}) as found where {matched}"


def _digests(con: duckdb.DuckDBPyConnection, rows: str) -> dict[str, tuple[int, int, int]]:
    """Rows and two sums of hashes over all columns, by landing file."""
    columns = ", ".join(TELEMETRY_SCHEMA.names)
    found = con.execute(
        f"select source_file, count(*), sum(hash({columns})::hugeint), sum(hash('again', {columns})::hugeint)"
        f" from ({rows}) group by all"
    ).fetchall()
    return {source_file: (count, first, second) for source_file, count, first, second in found}


def _digest_differences(
    before: dict[str, tuple[int, int, int]], after: dict[str, tuple[int, int, int]]
) -> list[str]:
    differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return [
        f"{name}: {before.get(name, (0,))[0]} rows before, {after.get(name, (0,))[0]} after"
        + (", content differs" if before.get(name, (0,))[0] == after.get(name, (0,))[0] else "")
        for name in differing[:EXAMPLES]
    ]


def _key_differences(con: duckdb.DuckDBPyConnection, before: str, after: str) -> list[str]:
    found = []
    for side, here, there in (("missing after", before, after), ("not there before", after, before)):
        rows = con.execute(
            f"select {_KEY} from ({here}) anti join (select {_KEY} from ({there})) using ({_KEY})"
            f" limit {EXAMPLES}"
        ).fetchall()
        found += [f"{stream} partition {part} offset {offset}: {side}" for stream, part, offset in rows]
    repeated = con.execute(
        f"select {_KEY}, count(*) from (select {_KEY} from ({after})) group by all having count(*) > 1"
        f" order by all limit {EXAMPLES}"
    ).fetchall()
    found += [
        f"{stream} partition {part} offset {offset}: {count} times"
        for stream, part, offset, count in repeated
    ]
    return found

"""What is reported of one peer, and the table of all. Nothing is measured here."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """One peer that read the whole topic.

    `whole_s` is the life of its process up to its last file; `consuming_s` leaves
    out what came before it began to read. `cpu_s` is of the whole process,
    `cpu_us_per_event` of what came after it began to read. `peak_rss_bytes` is
    sampled. `rows` are in Parquet files; `lost` and `duplicated` are counted by
    event id. `payloads` are rows that hold their raw message, whole.
    """

    peer: str
    version: str
    configuration: str
    messages: int
    rows: int
    lost: int
    duplicated: int
    payloads: int
    untyped: tuple[str, ...]
    files: int
    bytes_written: int
    whole_s: float
    consuming_s: float
    events_per_s: int
    cpu_s: float
    cpu_us_per_event: float
    peak_rss_bytes: int
    remarks: str

    @property
    def is_whole(self) -> bool:
        """Whether every message is there once."""
        return self.rows == self.messages and not self.lost and not self.duplicated


@dataclass(frozen=True)
class NotMeasured:
    """One peer that could not be installed or did not finish, and why."""

    peer: str
    why: str


Outcome = Figures | NotMeasured

_COLUMNS = (
    "peer",
    "events/s",
    "us CPU/event",
    "peak MB",
    "MB written",
    "files",
    "rows",
    "payload",
    "as text",
)


def lines(outcomes: Sequence[Outcome]) -> list[str]:
    """The outcomes as a Markdown table, and a line for each peer that was not measured."""
    rows = [_cells(one) for one in outcomes if isinstance(one, Figures)]
    table = [f"| {' | '.join(row)} |" for row in (_COLUMNS, ("---",) * len(_COLUMNS), *rows)] if rows else []
    return table + [
        f"{one.peer}: not measured: {one.why}" for one in outcomes if isinstance(one, NotMeasured)
    ]


def _cells(one: Figures) -> tuple[str, ...]:
    return (
        f"{one.peer} {one.version}",
        f"{one.events_per_s:,}",
        f"{one.cpu_us_per_event:.1f}",
        f"{one.peak_rss_bytes / 1e6:,.0f}",
        f"{one.bytes_written / 1e6:,.1f}",
        str(one.files),
        "all, once" if one.is_whole else f"{one.rows:,}: {one.lost:,} lost, {one.duplicated:,} twice",
        {0: "no", one.messages: "kept"}.get(one.payloads, f"{one.payloads:,} kept"),
        ", ".join(one.untyped) or "-",
    )

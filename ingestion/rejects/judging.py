"""How much of what each source sends is rejected, and whether that is too much. Values only, no I/O.

A source is judged with the decoder that read it: a new version of a decoder is as new as a
new vendor. What is known of a range is in its manifest; what a replay has landed since is
no reject any more. What the rejects are is in `reading`, how they are shown in `examples`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Protocol

from contracts.registry import TELEMETRY_FEED
from ingestion.rejects.offsets import OffsetSet
from lake.landing import Manifest
from lake.layout import is_replay
from lake.quarantine import Quarantine

# A source with history is judged by what was claimed in so long before the newest claim of all.
RECENT = timedelta(hours=24)


class Limits(Protocol):
    """When rejects are too many; `ingestion.settings.RejectSettings` holds them."""

    @property
    def max_share(self) -> Decimal: ...

    @property
    def min_messages(self) -> int: ...

    @property
    def accepted(self) -> tuple[str, ...]: ...

    @property
    def known_source_fails(self) -> bool: ...


@dataclass(frozen=True)
class SourceVerdict:
    """Rejects among the messages of one source and decoder that were judged.

    `ranges` are those. `is_too_much`: above the limit, and nobody has accepted it;
    `blocks`: nothing is built until that is settled.
    """

    source_system: str
    decoder: str
    messages: int
    rejected: int
    ranges: tuple[Manifest, ...]
    has_history: bool
    is_accepted: bool
    is_too_much: bool
    blocks: bool

    @property
    def name(self) -> str:
        """How settings name the pair."""
        return f"{self.source_system}/{self.decoder}"

    @property
    def share(self) -> float:
        return self.rejected / self.messages if self.messages else 0.0


def judge_sources(
    manifests: Iterable[Manifest],
    settled: Mapping[tuple[str, int], OffsetSet],
    quarantine: Quarantine,
    limits: Limits,
) -> list[SourceVerdict]:
    """A verdict for each source and decoder, by name; one with history that has been silent is not among them.

    `settled` are offsets that replays have landed (`reading.settled_offsets`). Ranges that are quarantined whole
    do not count. A pair has history once what was claimed of it more than `RECENT` ago was enough to be judged,
    and within the limit: rejects do not become ordinary by being old.
    """
    of_pair: dict[tuple[str, str], list[Manifest]] = {}
    for m in manifests:
        is_judged = m.feed == TELEMETRY_FEED and not is_replay(m.stream_id) and m.gap_reason is None
        if is_judged and not _is_set_aside(m, quarantine):
            of_pair.setdefault((m.source_system, m.decoder), []).append(m)
    newest = max((m.ingested_at for ranges in of_pair.values() for m in ranges), default=None)
    if newest is None:
        return []
    recent_from = newest - RECENT
    found = []
    for (source_system, decoder), ranges in sorted(of_pair.items()):
        earlier = [m for m in ranges if m.ingested_at < recent_from]
        messages, rejected = _counts(earlier, settled)
        has_history = messages >= limits.min_messages and _is_within(messages, rejected, limits)
        judged = [m for m in ranges if m.ingested_at >= recent_from] if has_history else ranges
        if not judged:
            continue
        messages, rejected = _counts(judged, settled)
        is_accepted = f"{source_system}/{decoder}" in limits.accepted
        is_too_much = (
            messages >= limits.min_messages and not _is_within(messages, rejected, limits) and not is_accepted
        )
        found.append(
            SourceVerdict(
                source_system,
                decoder,
                messages,
                rejected,
                tuple(judged),
                has_history,
                is_accepted,
                is_too_much,
                blocks=is_too_much and (limits.known_source_fails or not has_history),
            )
        )
    return found


def _is_within(messages: int, rejected: int, limits: Limits) -> bool:
    return rejected <= limits.max_share * messages


def _counts(ranges: Iterable[Manifest], settled: Mapping[tuple[str, int], OffsetSet]) -> tuple[int, int]:
    messages = rejected = 0
    for m in ranges:
        messages += m.rows + m.rejected + m.consent_dropped
        since = settled.get((m.stream_id, m.partition))
        rejected += m.rejected - (since.count(m.start, m.end) if since and m.rejected else 0)
    return messages, rejected


def _is_set_aside(m: Manifest, quarantine: Quarantine) -> bool:
    return any(
        (span.stream_id, span.partition) == (m.stream_id, m.partition)
        and span.start <= m.start
        and m.end <= span.end
        and span.source_file in (None, m.source_file)
        for span in quarantine.spans
    )

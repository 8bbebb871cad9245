"""Mending claim chains of a store in which two claims of one partition overlap, or which begin above 0.

Of claims that overlap, what one repeats of another is set aside by the quarantine ledger,
in its own file only; rows that only one of them holds are never set aside. A chain that
begins above 0 gets the gap claim that it lacks. Claims, manifests and objects stay what
they are. How chains come about is `lake.landing`'s and `recovery`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import msgspec
import numpy as np
import numpy.typing as npt

from ingestion.collector.recovery import close_claims
from lake import layout
from lake.catalogue import forget_generations
from lake.landed import read_columns
from lake.landing import Claim, claim_range, list_claims, read_manifest
from lake.quarantine import Quarantine, QuarantineEntry, Span, load_quarantine, put_entry, quarantine_entry
from lake.replacements import load_replacements
from lake.store import ObjectMissingError, ObjectStore

# Why a gap claim holds nothing: what the first claim of its partition found the log to begin with.
LOG_BEGAN_LATER = "the log began later when the partition was first claimed"

Offsets = npt.NDArray[np.int64]


class ChainNotMendedError(Exception):
    """Another claim came in between; look again."""


@dataclass(frozen=True)
class ChainMend:
    """What mends the chains: spans that claims repeat of others, gap claims that are missing, and what
    cannot be mended, in words. `hidden` claims lie before the catalogue's frontiers, where readers do not look."""

    superseded: tuple[Span, ...] = ()
    gaps: tuple[Claim, ...] = ()
    refused: tuple[str, ...] = ()
    hidden: int = 0

    def __bool__(self) -> bool:
        return bool(self.superseded or self.gaps or self.hidden)


def plan_mend(store: ObjectStore, now: datetime, claimed_by: str) -> ChainMend:
    """Look at every claim and say what there is to mend. Changes nothing."""
    keys = [info.key for info in store.list(layout.CLAIMS)]
    decoder = msgspec.json.Decoder(Claim)
    claims = sorted(map(decoder.decode, store.get_many(keys)), key=lambda claim: claim.range_key)
    quarantine = load_quarantine(store)
    offsets_of = _reader(store)
    superseded: list[Span] = []
    gaps: list[Claim] = []
    refused: list[str] = []
    for _, of_partition in groupby(claims, key=lambda claim: claim.range_key[:2]):
        chain = [*of_partition]
        spans, why = superseded_spans(chain, quarantine, offsets_of)
        superseded += spans
        refused += why
        if chain[0].start > 0:
            gaps.append(gap_before(chain[0], now, claimed_by))
        elif chain[0].gap_reason == LOG_BEGAN_LATER and offsets_of(chain[0]) is None:
            # Whoever claimed it died before it was landed.
            gaps.append(chain[0])
    return ChainMend(
        tuple(superseded), tuple(gaps), tuple(refused), hidden=len(claims) - len(list_claims(store))
    )


def mend_chains(
    store: ObjectStore, mend: ChainMend, reason: str, entered_by: str, now: datetime
) -> QuarantineEntry | None:
    """Carry out a plan; the entry that the ledger got, None where nothing is superseded.

    One that died is finished by planning and mending again. Raises ChainNotMendedError when
    another claim took the place of a gap claim meanwhile.
    """
    entry = quarantine_entry(reason, entered_by, now, mend.superseded) if mend.superseded else None
    if entry is not None:
        put_entry(store, entry)
    for gap in mend.gaps:
        if claim_range(store, gap) != gap:
            raise ChainNotMendedError(f"{_name(gap)} was claimed by another meanwhile; run this again")
        close_claims(store, [gap], LOG_BEGAN_LATER)
    # A catalogue that was rolled up before begins behind what it does not know.
    if len(list_claims(store)) != sum(1 for _ in store.list(layout.CLAIMS)):
        forget_generations(store)
    return entry


def superseded_spans(
    chain: Iterable[Claim], quarantine: Quarantine, offsets_of: Callable[[Claim], Offsets | None]
) -> tuple[list[Span], list[str]]:
    """What to set aside so that no two claims of one partition overlap, and where that would lose rows.

    `offsets_of` gives the offsets of a claim's rows, None for one that has not landed. Of two that
    overlap the later one is set aside there if the earlier one has all its rows, otherwise the other way round.
    """
    chain = [*chain]
    spans: list[Span] = []
    while overlap := _first_overlap(chain, _with(quarantine, spans)):
        before, after, start, end = overlap
        held = [offsets_of(claim) for claim in (before, after)]
        unlanded = [claim for claim, found in zip((before, after), held, strict=True) if found is None]
        if unlanded:
            return spans, [
                f"{_name(unlanded[0])} overlaps another claim and has not landed: `petwellness collect` finishes it,"
                " `petwellness gaps --close-dead` closes it once its topic is deleted"
            ]
        mine, others = (
            {*found[(found >= start) & (found < end)].tolist()} for found in held if found is not None
        )
        if others <= mine:
            repeats = after
        elif mine <= others:
            repeats = before
        else:
            return spans, [
                f"{_name(before)} and {_name(after)} overlap in [{start}, {end}), and each has rows there that the"
                f" other has not ({len(mine - others)} and {len(others - mine)}): setting either aside would lose rows"
            ]
        spans.append(Span(repeats.stream_id, repeats.partition, start, end, repeats.landing_key))
    return spans, []


def gap_before(first: Claim, now: datetime, claimed_by: str) -> Claim:
    """The gap claim of everything before a partition's first claim."""
    return msgspec.structs.replace(
        first,
        start=0,
        end=first.start,
        claimed_at=now,
        claimed_by=claimed_by,
        gap_reason=LOG_BEGAN_LATER,
        replayed=None,
    )


def _with(quarantine: Quarantine, spans: list[Span]) -> Quarantine:
    planned = quarantine_entry("", "", datetime.min, spans)
    return Quarantine((*quarantine.entries, planned))


def _first_overlap(chain: list[Claim], quarantine: Quarantine) -> tuple[Claim, Claim, int, int] | None:
    """Two claims of which the same offsets stand: the earlier, the later, and those offsets."""
    pieces = sorted(
        ((piece.start, piece.end, claim) for claim in chain for piece in quarantine.standing([claim])),
        key=lambda piece: piece[:2],
    )
    reached, holder = 0, None
    for start, end, claim in pieces:
        if holder is not None and start < reached:
            return holder, claim, start, min(end, reached)
        if end > reached:
            reached, holder = end, claim
    return None


def _reader(store: ObjectStore) -> Callable[[Claim], Offsets | None]:
    replacements = load_replacements(store)
    known: dict[layout.RangeKey, Offsets | None] = {}

    def offsets_of(claim: Claim) -> Offsets | None:
        if claim.range_key not in known:
            try:
                manifest = read_manifest(store, claim.range_key)
            except ObjectMissingError:
                known[claim.range_key] = None
            else:
                rows = read_columns(store, replacements.main_object_of(manifest), ["kafka_offset"])
                known[claim.range_key] = rows["kafka_offset"].to_numpy()
        return known[claim.range_key]

    return offsets_of


def _name(claim: Claim) -> str:
    return f"claim [{claim.start}, {claim.end}) of {claim.stream_id} partition {claim.partition}"

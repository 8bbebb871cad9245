"""What a person should know of the telemetry that arrived: rejects by source, devices that nobody registered.

How it is judged is `ingestion.rejects` and `lake.unregistered`; here the lake is asked under the
platform's settings, for checks and for commands alike. Everything is read from the lake, so it is the same
whichever warehouse there is, and before anything is loaded.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingestion.rejects.examples import Example
    from ingestion.rejects.judging import SourceVerdict
    from lake.landing import Manifest
    from lake.store import ObjectStore
    from lake.unregistered import Unregistered
    from petwellness_orchestration.settings import PlatformSettings

# A terminal's width, and where the text of a line of `petwellness status` begins.
WIDTH = 79
MARGIN = 11
EXAMPLES = 5
# Of a source with too many rejects, the newest are looked at.
_RANGES_READ = 20
_REJECTS_READ = 2_000


@dataclass(frozen=True)
class Source:
    """A verdict, with examples where there is something to mend."""

    verdict: SourceVerdict
    examples: tuple[Example, ...] = ()

    @property
    def text(self) -> str:
        """`lab lab-v1@1: 5,020 of 10,000 messages (50.2 %)`, and what follows from it."""
        one = self.verdict
        counts = f"{one.rejected:,} of {one.messages:,} messages ({one.share:.1%})".replace("%", " %")
        return f"{one.name}: {counts}{self._consequence}"

    @property
    def _consequence(self) -> str:
        one = self.verdict
        if one.blocks:
            return "; stops runs before the build"
        if one.is_too_much:
            return "; more than usual"
        return "; accepted" if one.is_accepted else ""


def look_at_sources(
    store: ObjectStore, manifests: Sequence[Manifest], settings: PlatformSettings
) -> list[Source]:
    """Every source and decoder that sent something, judged by its rejects; `manifests` are all of the lake."""
    from ingestion.rejects.judging import judge_sources
    from ingestion.rejects.reading import settled_offsets
    from lake.quarantine import load_quarantine

    verdicts = judge_sources(manifests, settled_offsets(store), load_quarantine(store), settings.rejects)
    return [Source(one, _examples(store, one) if one.is_too_much else ()) for one in verdicts]


def _examples(store: ObjectStore, verdict: SourceVerdict) -> tuple[Example, ...]:
    from ingestion.rejects.examples import examples_of
    from ingestion.rejects.reading import RejectFilter, list_rejects

    rejected = sorted((m for m in verdict.ranges if m.rejected), key=lambda m: m.ingested_at)
    found = list_rejects(store, rejected[-_RANGES_READ:], RejectFilter(), _REJECTS_READ, with_payload=True)
    return tuple(examples_of((row for row in found.examples if not row["replayed"]), EXAMPLES))


def look_at_devices(store: ObjectStore, manifests: Sequence[Manifest]) -> Unregistered:
    """Devices of the telemetry that was claimed last, in a day, that nobody registered."""
    from contracts.registry import TELEMETRY_FEED
    from ingestion.rejects.judging import RECENT
    from lake.unregistered import find_unregistered

    landed = [m for m in manifests if m.feed == TELEMETRY_FEED]
    newest = max((m.ingested_at for m in landed), default=None)
    return find_unregistered(store, [m for m in landed if newest and m.ingested_at >= newest - RECENT])


def device_text(found: Unregistered) -> str:
    """`12 events of 3 devices that nobody registered: collar-9, ...`."""
    from ingestion.rejects.examples import shown_device

    if not found.events:
        return "all are registered"
    more = ", ..." if found.devices > len(found.examples) else ""
    shown = ", ".join(map(shown_device, found.examples))
    return f"{found.events:,} events of {found.devices:,} devices that nobody registered: {shown}{more}"


def arrival_lines(sources: Sequence[Source], devices: Unregistered) -> list[str]:
    """For people, under labels as those of `petwellness status`; no line is longer than a terminal is wide."""
    lines: list[str] = []
    for source in sources:
        lines += _wrapped("" if lines else "rejects", source.text)
        for example in source.examples:
            lines += _wrapped("", f"  {example}", "  ")
    return [
        *(lines or _wrapped("rejects", "nothing has arrived")),
        *_wrapped("devices", device_text(devices)),
    ]


def _wrapped(label: str, text: str, hanging: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"{label:<{MARGIN}}",
        subsequent_indent=" " * MARGIN + hanging + "  ",
        drop_whitespace=True,
        break_on_hyphens=False,
    )

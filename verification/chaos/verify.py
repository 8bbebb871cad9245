"""Is every produced record in the lake once? Answered from the bucket's objects and the ledger alone.

Reads names, JSON and Parquet by itself and shares no code with the collector, so
that a mistake there cannot hide here. The rules are those of the landing protocol.
"""

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from verification.chaos.traffic import DROPPED, ROW, Ledger, Record

_CLAIM = re.compile(r"_claims/([^/]+)/(\d+)/(\d+)\.json")
_MANIFEST = re.compile(r"_manifests/([^/]+)/(\d+)/(\d+)\.json")
_MAIN = re.compile(r"landing/telemetry_events/date=([0-9-]+)/([^/+]+)\+(\d+)\+(\d+)\+(\d+)\.parquet")
_FOOTER = b"petwellness"
_READERS = 8
# More examples than this help nobody.
_MOST_VIOLATIONS = 20

_Range = tuple[str, int, int]


@dataclass
class Findings:
    """What the lake holds of what was produced.

    `missing` and `duplicated` count records by (stream, partition, offset), the
    `_by_content` figures count payloads whatever their offset; `violations` are
    broken rules of the protocol in words (at most 20); `orphaned_rejects` are
    reject objects that no range refers to, which is no fault.
    `claims_of_dead_streams` were never landed before their topic was deleted.
    """

    produced: int = 0
    rows: int = 0
    rejected: int = 0
    consent_dropped: int = 0
    offset_gaps: int = 0
    ranges: int = 0
    missing: int = 0
    duplicated: int = 0
    missing_by_content: int = 0
    duplicated_by_content: int = 0
    orphaned_rejects: int = 0
    claims_of_dead_streams: int = 0
    broken_rules: int = 0
    violations: list[str] = field(default_factory=list)

    def violated(self, text: str) -> None:
        self.broken_rules += 1
        if len(self.violations) < _MOST_VIOLATIONS:
            self.violations.append(text)

    @property
    def exact(self) -> bool:
        """Whether everything is there once and every rule held."""
        return not (
            self.missing
            or self.duplicated
            or self.missing_by_content
            or self.duplicated_by_content
            or self.broken_rules
        )


def read_bucket(client: Any, bucket: str) -> dict[str, bytes]:
    """Every object of a bucket."""
    keys = list_bucket(client, bucket)
    with ThreadPoolExecutor(_READERS) as pool:
        bodies = pool.map(lambda key: client.get_object(Bucket=bucket, Key=key)["Body"].read(), keys)
        return dict(zip(keys, bodies, strict=True))


def list_bucket(client: Any, bucket: str, prefix: str = "") -> list[str]:
    """Every key of a bucket under a prefix."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def unfinished(keys: Iterable[str]) -> set[_Range]:
    """Ranges that were claimed and have no main object or no manifest yet, from the objects' names."""
    claims, mains, manifests = set(), set(), set()
    for key in keys:
        if match := _CLAIM.fullmatch(key):
            claims.add((match[1], int(match[2]), int(match[3])))
        elif match := _MAIN.fullmatch(key):
            mains.add((match[2], int(match[3]), int(match[4])))
        elif match := _MANIFEST.fullmatch(key):
            manifests.add((match[1], int(match[2]), int(match[3])))
    return claims - (mains & manifests)


def main_ends(keys: Iterable[str]) -> dict[tuple[str, int], int]:
    """End of the last main object of each partition, from the objects' names."""
    found: dict[tuple[str, int], int] = {}
    for match in filter(None, map(_MAIN.fullmatch, keys)):
        place = (match[2], int(match[3]))
        found[place] = max(found.get(place, 0), int(match[5]))
    return found


def verify(
    objects: Mapping[str, bytes],
    ledger: Ledger,
    log_ends: Mapping[tuple[str, int], int],
    dead_streams: Collection[str] = (),
) -> Findings:
    """Compare the lake's objects with the ledger.

    `log_ends` gives the end of each log by (stream, partition). A stream whose topic
    was deleted (`dead_streams`) may leave claims that nobody can land any more.
    """
    findings = Findings(produced=sum(map(len, ledger.values())))
    claims = _claims(objects, findings)
    mains = _mains(objects, claims, findings)
    _check_chains(claims, ledger, log_ends, findings)
    for place in sorted(claims.keys() - mains.keys()):
        if place[0] in dead_streams:
            del claims[place]
            findings.claims_of_dead_streams += 1
        else:
            findings.violated(f"{_name(place)} was claimed and has no main object")
    found: Counter[tuple[str, int, int]] = Counter()
    contents: Counter[bytes] = Counter()
    referred: set[str] = set()
    for place, keys in sorted(mains.items()):
        for key in keys:
            _check_range(key, place, objects, claims, ledger, findings, found, contents, referred)
    _check_manifests(objects, claims, mains, findings)
    _compare(ledger, found, contents, findings)
    findings.ranges = len(claims)
    findings.orphaned_rejects = sum(
        1 for key in objects if key.startswith("_rejects/") and key not in referred
    )
    return findings


def _claims(objects: Mapping[str, bytes], findings: Findings) -> dict[_Range, dict[str, Any]]:
    claims = {}
    for key, body in objects.items():
        if not key.startswith("_claims/"):
            continue
        match = _CLAIM.fullmatch(key)
        if match is None:
            findings.violated(f"{key} is not named like a claim")
            continue
        claim = json.loads(body)
        place = (match[1], int(match[2]), int(match[3]))
        if (claim["stream_id"], claim["partition"], claim["start"]) != place:
            findings.violated(f"{key} holds the claim of another range")
        claims[place] = claim
    return claims


def _mains(
    objects: Mapping[str, bytes], claims: Mapping[_Range, dict[str, Any]], findings: Findings
) -> dict[_Range, list[str]]:
    mains: dict[_Range, list[str]] = {}
    for key in objects:
        if not key.startswith("landing/"):
            continue
        match = _MAIN.fullmatch(key)
        if match is None:
            findings.violated(f"{key} is not named like a main object")
            continue
        place = (match[2], int(match[3]), int(match[4]))
        mains.setdefault(place, []).append(key)
        claim = claims.get(place)
        if claim is None:
            findings.violated(f"{key} has no claim")
        elif claim["end"] != int(match[5]) or not claim["claimed_at"].startswith(match[1]):
            findings.violated(f"{key} is not named as its claim says (end {claim['end']})")
    for place, keys in mains.items():
        if len(keys) > 1:
            findings.violated(f"{_name(place)} has {len(keys)} main objects")
    return mains


def _check_chains(
    claims: Mapping[_Range, dict[str, Any]],
    ledger: Ledger,
    log_ends: Mapping[tuple[str, int], int],
    findings: Findings,
) -> None:
    ends: dict[tuple[str, int], int] = {}
    for (stream_id, partition, start), claim in sorted(claims.items()):
        before = ends.get((stream_id, partition), 0)
        if start != before:
            findings.violated(f"{stream_id}/{partition}: a claim starts at {start}, not at {before}")
        ends[stream_id, partition] = claim["end"]
    for place, end in log_ends.items():
        last = max(ledger.get(place, {}), default=-1)
        if not last < ends.get(place, 0) <= end:
            findings.violated(f"{place[0]}/{place[1]}: claims end at {ends.get(place, 0)}, the log at {end}")


def _check_range(
    key: str,
    place: _Range,
    objects: Mapping[str, bytes],
    claims: Mapping[_Range, dict[str, Any]],
    ledger: Ledger,
    findings: Findings,
    found: Counter[tuple[str, int, int]],
    contents: Counter[bytes],
    referred: set[str],
) -> None:
    import pyarrow.parquet as pq

    stream_id, partition, start = place
    file = pq.ParquetFile(io.BytesIO(objects[key]))
    footer = json.loads((file.metadata.metadata or {})[_FOOTER])
    claim = claims.get(place)
    if claim is not None and footer["claim"] != claim:
        findings.violated(f"{key} was written under another claim than the one in force")
    end = footer["claim"]["end"]
    produced = ledger.get((stream_id, partition), {})
    inside = {offset: record for offset, record in produced.items() if start <= offset < end}
    names = ["stream_id", "kafka_partition", "kafka_offset", "event_id", "payload", "source_file"]
    rows = file.read(columns=names).to_pylist()
    for row in rows:
        offset = row["kafka_offset"]
        found[stream_id, partition, offset] += 1
        contents[_digest(row["payload"].encode())] += 1
        record = inside.get(offset)
        if (row["stream_id"], row["kafka_partition"], row["source_file"]) != (stream_id, partition, key):
            findings.violated(f"{key}: the row of offset {offset} carries another envelope")
        if record is None or record.fate != ROW:
            fate = "unknown" if record is None else record.fate
            findings.violated(f"{key}: offset {offset} is a row, its fate was {fate}")
        elif row["payload"].encode() != record.value or row["event_id"] != record.event_id:
            findings.violated(f"{key}: the row of offset {offset} has another content than was produced")
    rejects = _rejects(key, footer, objects, findings, referred)
    for reject in rejects:
        offset = reject["kafka_offset"]
        found[stream_id, partition, offset] += 1
        _check_reject(key, reject, inside.get(offset), findings)
        record = inside.get(offset)
        # A payload that had to be withheld counts as found by its offset.
        payload = record.value if record and reject["payload"] is None else reject["payload"]
        contents[_digest(payload)] += 1
    dropped, gaps = footer["consent_dropped"], footer["offset_gaps"]
    if dropped != sum(record.fate == DROPPED for record in inside.values()):
        findings.violated(f"{key} counts {dropped} drops for consent, which is not what was produced")
    if gaps != end - start - len(inside):
        findings.violated(f"{key} counts {gaps} offset gaps, {end - start - len(inside)} are in the log")
    if len(rows) + len(rejects) + dropped + gaps != end - start:
        findings.violated(f"{key} breaks the law: {len(rows)} + {len(rejects)} + {dropped} + {gaps}")
    findings.rows += len(rows)
    findings.rejected += len(rejects)
    findings.consent_dropped += dropped
    findings.offset_gaps += gaps


def _rejects(
    key: str, footer: dict[str, Any], objects: Mapping[str, bytes], findings: Findings, referred: set[str]
) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    name = footer["reject_object"]
    if name is None:
        rejects = []
    elif name not in objects:
        findings.violated(f"{key} refers to {name}, which is not there")
        return []
    else:
        referred.add(name)
        rejects = pq.read_table(io.BytesIO(objects[name])).to_pylist()
    if dict(Counter(reject["reason"] for reject in rejects)) != footer["rejected_by_reason"]:
        findings.violated(f"{key}: its rejects are not the ones its footer counts")
    return rejects


def _check_reject(key: str, reject: dict[str, Any], record: Record | None, findings: Findings) -> None:
    offset = reject["kafka_offset"]
    if record is None or record.fate in (ROW, DROPPED) or record.fate != reject["reason"]:
        fate = "unknown" if record is None else record.fate
        findings.violated(f"{key}: offset {offset} is a reject ({reject['reason']}), its fate was {fate}")
    elif reject["payload"] != ((record.value or b"") if record.keeps_payload else None):
        findings.violated(f"{key}: the reject of offset {offset} has another payload than was produced")


def _check_manifests(
    objects: Mapping[str, bytes],
    claims: Mapping[_Range, dict[str, Any]],
    mains: Mapping[_Range, list[str]],
    findings: Findings,
) -> None:
    seen = set()
    for key, body in objects.items():
        if not key.startswith("_manifests/"):
            continue
        match = _MANIFEST.fullmatch(key)
        if match is None:
            findings.violated(f"{key} is not named like a manifest")
            continue
        place, manifest = (match[1], int(match[2]), int(match[3])), json.loads(body)
        seen.add(place)
        stored = objects.get(manifest["source_file"])
        if manifest["source_file"] not in mains.get(place, []) or stored is None:
            findings.violated(f"{key} names {manifest['source_file']}, which is not its main object")
        elif hashlib.sha256(stored).hexdigest() != manifest["sha256"] or len(stored) != manifest["bytes"]:
            findings.violated(f"{key} describes other bytes than its main object has")
        counted = (
            manifest["rows"]
            + sum(manifest["rejected_by_reason"].values())
            + manifest["consent_dropped"]
            + manifest["offset_gaps"]
        )
        if counted != manifest["end"] - manifest["start"]:
            findings.violated(f"{key} breaks the law")
    for place in claims.keys() - seen:
        findings.violated(f"{_name(place)} was claimed and has no manifest")


def _compare(
    ledger: Ledger,
    found: Counter[tuple[str, int, int]],
    contents: Counter[bytes],
    findings: Findings,
) -> None:
    expected: Counter[bytes] = Counter()
    for (stream_id, partition), records in ledger.items():
        for offset, record in records.items():
            if record.fate == DROPPED:
                continue
            expected[_digest(record.value)] += 1
            if (stream_id, partition, offset) not in found:
                findings.missing += 1
    findings.duplicated = sum(count - 1 for count in found.values())
    findings.missing_by_content = (expected - contents).total()
    findings.duplicated_by_content = (contents - expected).total()


def _digest(payload: bytes | None) -> bytes:
    return hashlib.sha256(payload or b"").digest()


def _name(place: _Range) -> str:
    return f"{place[0]}/{place[1]} from {place[2]}"

"""The CampusIoT trackers: frames of the file in order of receipt, and the devices behind them.

The trackers are on no pet, so there are devices and no assignments. What a frame
means is the decoder's business (`contracts.decoders.campusiot`); publishing
frames as messages is that of `replay`.
"""

import gzip
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from contracts.decoders.campusiot import SOURCE_SYSTEM
from contracts.decoders.document import Document, moment_of_millis, parse_document
from contracts.records import canonical_json
from contracts.telemetry import RejectError
from ingestion.extracts.build import Draft, build_extract
from ingestion.extracts.files import SourceFile, read_source
from ingestion.extracts.model import Problem, SourceFormatError, SourceRead

FILE = "telemetry/campusiot_helium_FTD_gps_tracker.ndjson.gz"
ROW_FEED = "devices"
# Milliseconds of 2000-01-01 and 2100-01-01: no receipt lies outside, and Kafka takes any number.
_RECEIPT_FROM_MS, _RECEIPT_TO_MS = 946_684_800_000, 4_102_444_800_000


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as the file holds it, its line, and the server's time of receipt (`_timestamp`).

    `device_id` and `name` are empty where the frame does not say them as text.
    """

    line: int
    value: bytes = field(repr=False)
    device_id: str
    name: str
    arrival_ts_ms: int


def read_frames(file: SourceFile) -> tuple[list[Frame], list[Problem], int]:
    """Frames in order of receipt, lines that cannot be one, and the number of lines.

    A line is set aside when it is no JSON object or says no time of receipt: it cannot
    be sent as it once arrived. Anything else a frame may lack is the decoder's to reject.
    Raises SourceFormatError when the file is not gzip.
    """
    try:
        content = gzip.decompress(file.content)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceFormatError(f"{file.name} is not a whole gzip file: {error}") from None
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    frames: list[Frame] = []
    problems: list[Problem] = []
    for number, value in enumerate(lines, start=1):
        try:
            document = parse_document(value)
        except RejectError as reject:
            problems.append(Problem(file.name, number, reject.reason, reject.detail))
            continue
        arrival = document.get("_timestamp")
        if type(arrival) is not int or not _RECEIPT_FROM_MS <= arrival < _RECEIPT_TO_MS:
            problems.append(Problem(file.name, number, "no_arrival_time", "_timestamp is no time of receipt"))
            continue
        frames.append(Frame(number, value, _text(document, "dev_eui"), _text(document, "name"), arrival))
    frames.sort(key=lambda frame: (frame.arrival_ts_ms, frame.line))
    return frames, problems, len(lines)


def _text(document: Document, name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def read_trackers(data_dir: Path) -> SourceRead:
    """The trackers seen in the file as an extract of devices.

    Lines that are no frame are reported where they are sent (`replay`), not here.
    Raises MissingSourceError or SourceFormatError.
    """
    file = read_source(data_dir, FILE)
    frames, _, _ = read_frames(file)
    if not frames:
        raise SourceFormatError(f"{file.name} holds no frame")
    first: dict[str, Frame] = {}
    names: dict[str, set[str]] = {}
    for frame in frames:
        if frame.device_id:
            first.setdefault(frame.device_id, frame)
            names.setdefault(frame.device_id, set()).add(frame.name)
    drafts = [
        Draft(
            file.name,
            frame.line,
            {
                "business_key": device_id,
                "op": "upsert",
                "changed_at": moment_of_millis("_timestamp", frame.arrival_ts_ms),
                "payload": canonical_json(
                    {"dev_eui": device_id, "names": sorted(filter(None, names[device_id]))}
                ),
                "device_id": device_id,
                "hardware_serial": device_id,
                "vendor": SOURCE_SYSTEM,
            },
        )
        for device_id, frame in first.items()
    ]
    extract, problems = build_extract(
        SOURCE_SYSTEM,
        ROW_FEED,
        drafts,
        files=[file],
        complete=False,
        extracted_at=moment_of_millis("_timestamp", frames[-1].arrival_ts_ms),
    )
    return SourceRead(ROW_FEED, [extract], problems, {})

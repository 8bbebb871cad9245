"""A sample of the real files that has some of everything that is counted in them. The figures of it are computed as
those of the whole files are, by `realdata_reference`."""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

# One owner in 16, with all rows of all snapshots, and one animal of the shelter, with all its stays: those whose
# number leaves this remainder, because impossible years of birth and stays entered twice are among them.
ONE_IN = 16
REMAINDER = 2
# Of the tracker's frames in the order of receipt; of the cats' tags in that of the file.
FRAMES = 4000
TAGS = 8

REGISTRY = "registry/zurich_*_hundehalter.csv"
TRACKER = "telemetry/campusiot_helium_FTD_gps_tracker.ndjson.gz"
CATS, CATS_REFERENCE = "telemetry/cats_uk.csv", "telemetry/cats_uk_reference.csv"
SHELTER = "visits/longbeach_animal_shelter.parquet"


def write_sample(whole: Path, sample: Path) -> None:
    """Write the sample of the files in `whole` to the new folder `sample`; files that are small are links."""
    for path in whole.rglob("*"):
        target = sample / path.relative_to(whole)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    for path in whole.glob(REGISTRY):
        cut_csv(sample / path.relative_to(whole), lambda row: is_in_sample(row["HALTER_ID"]))
    with (whole / CATS_REFERENCE).open(encoding="utf-8-sig", newline="") as file:
        tags = {row["tag_id"] for row in [*csv.DictReader(file)][:TAGS]}
    for name in (CATS, CATS_REFERENCE):
        cut_csv(sample / name, lambda row: row["tag_id"] in tags)
    with gzip.open(whole / TRACKER, "rb") as lines:
        frames = b"".join(lines.readlines()[:FRAMES])
    own(sample / TRACKER).write_bytes(gzip.compress(frames))
    stays = pq.read_table(whole / SHELTER)
    kept = [is_in_sample(animal_id) for animal_id in stays["animal_id"].to_pylist()]
    pq.write_table(stays.filter(pa.array(kept)), own(sample / SHELTER))


def is_in_sample(identifier: str) -> bool:
    """By the number in an owner's or an animal's identifier."""
    return int("".join(filter(str.isdigit, identifier)) or "0") % ONE_IN == REMAINDER


def cut_csv(link: Path, is_kept: Callable[[dict[str, str]], bool]) -> None:
    """Put a file with the kept rows in the place of a link to the whole one."""
    with link.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if is_kept(row)]
    with own(link).open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, reader.fieldnames or [])
        writer.writeheader()
        writer.writerows(rows)


def own(link: Path) -> Path:
    """The path without the link, to write a file of its own there."""
    link.unlink()
    return link

"""Figures of the real data, computed a second time straight from the files.

Uses the standard library and pyarrow's Parquet reader, and no line of the
platform, so that a fault there cannot hide itself. `compute` gives what the demo on
real data must print; the platform's figures come from its own tables.
"""

import csv
import gzip
import json
import re
from collections import Counter, defaultdict
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

# A tracker frame is late when the server got it more than this after `reported_at`.
LATE_AFTER_S = 60


def compute(data_dir: Path) -> dict[str, Any]:
    """All figures by part: `registry`, `tracker`, `cats`, `shelter`, `breeds`, `event_days`."""
    tracker, tracker_days = tracker_figures(data_dir)
    cats, cat_days = cat_figures(data_dir)
    return {
        "registry": registry_figures(data_dir),
        "tracker": tracker,
        "cats": cats,
        "shelter": shelter_figures(data_dir),
        "breeds": {"rows": len(_csv(data_dir / "breeds/akc-data.csv"))},
        "event_days": {
            "tracker": len(tracker_days),
            "cats": len(cat_days),
            "both": len(tracker_days | cat_days),
            "first": min(tracker_days | cat_days),
            "last": max(tracker_days | cat_days),
        },
    }


def registry_figures(data_dir: Path) -> dict[str, Any]:
    """Figures of the registry.

    By snapshot (`YYYY-MM-DD`): `rows`; `owners`, distinct HALTER_ID;
    `duplicate_rows`, rows equal to an earlier row in every column; `dogs`, rows less
    duplicates; `impossible_birth_years`, rows whose year is before 1900, after the
    snapshot's or more than 30 before it.

    By snapshot compared with the one before: `district_changed`, owners in both with
    another non-empty STADTKREIS; `left`, owners of the earlier one only; `came`, owners
    of the later one only; `returned`, those of `came` seen in a snapshot before the
    earlier one; `new`, the other ones of `came`.
    """
    by_day: dict[str, list[dict[str, str]]] = {}
    for path in sorted((data_dir / "registry").glob("zurich_*_hundehalter.csv")):
        match = re.search(r"(\d{4})(\d\d)(\d\d)_", path.name)
        assert match, path
        by_day["-".join(match.groups())] = _csv(path)
    out: dict[str, Any] = {
        "rows": {day: len(rows) for day, rows in by_day.items()},
        "owners": {day: len({row["HALTER_ID"] for row in rows}) for day, rows in by_day.items()},
        "duplicate_rows": {
            day: len(rows) - len({tuple(row.values()) for row in rows}) for day, rows in by_day.items()
        },
        "dogs": {day: len({tuple(row.values()) for row in rows}) for day, rows in by_day.items()},
        "impossible_birth_years": {
            day: sum(not _possible(row["GEBURTSJAHR_HUND"], int(day[:4])) for row in rows)
            for day, rows in by_day.items()
        },
    }
    districts = {day: {row["HALTER_ID"]: row["STADTKREIS"] for row in rows} for day, rows in by_day.items()}
    for name in ("district_changed", "left", "came", "returned", "new"):
        out[name] = {}
    days = list(districts)
    for before, after in pairwise(days):
        old, now = districts[before], districts[after]
        came = now.keys() - old.keys()
        seen = {owner for day in days[: days.index(before)] for owner in districts[day]}
        out["district_changed"][after] = sum(
            1 for owner in old.keys() & now.keys() if old[owner] and now[owner] and old[owner] != now[owner]
        )
        out["left"][after] = len(old.keys() - now.keys())
        out["came"][after] = len(came)
        out["returned"][after] = len(came & seen)
        out["new"][after] = len(came - seen)
    return out


def _possible(year: str, snapshot_year: int) -> bool:
    return year.isdigit() and max(1900, snapshot_year - 30) <= int(year) <= snapshot_year


def tracker_figures(data_dir: Path) -> tuple[dict[str, Any], set[str]]:
    """Figures of the tracker stream, and the UTC dates of `reported_at`.

    `frames`, lines; `distinct_frames`, by (dev_eui, devaddr, fcnt, port, decoded
    payload); `repeated`, frames whose key came before; `late`, received more than
    LATE_AFTER_S after `reported_at`; `out_of_order`, `reported_at` before that of a
    frame of the same device received earlier (repeats count as received);
    `without_fix`, no latitude, and `distinct_without_fix`; `held`, frames a hotspot
    held more than LATE_AFTER_S before reporting (its `hold_time`); `devices`, the
    trackers, which are on no pet; `names`, the names they went by.
    """
    path = data_dir / "telemetry/campusiot_helium_FTD_gps_tracker.ndjson.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        frames = [json.loads(line) for line in lines]
    frames.sort(key=lambda frame: frame["_timestamp"])
    keys: set[tuple[Any, ...]] = set()
    newest: dict[str, int] = {}
    days: set[str] = set()
    count: Counter[str] = Counter()
    for frame in frames:
        device, reported, measured = frame["dev_eui"], frame["reported_at"], frame["decoded"]["payload"]
        key = (device, frame["devaddr"], frame["fcnt"], frame["port"], json.dumps(measured, sort_keys=True))
        no_fix = measured["latitude"] is None
        count["frames"] += 1
        count["repeated"] += key in keys
        count["distinct_without_fix"] += no_fix and key not in keys
        count["without_fix"] += no_fix
        count["late"] += frame["_timestamp"] - reported > LATE_AFTER_S * 1000
        count["held"] += frame["hotspots"][0]["hold_time"] > LATE_AFTER_S * 1000
        count["out_of_order"] += reported < newest.get(device, 0)
        keys.add(key)
        newest[device] = max(newest.get(device, 0), reported)
        days.add(datetime.fromtimestamp(reported / 1000, UTC).date().isoformat())
    figures: dict[str, Any] = dict(count)
    figures["distinct_frames"] = len(keys)
    figures["devices"] = sorted(newest)
    figures["names"] = sorted({frame["name"] for frame in frames})
    return figures, days


def cat_figures(data_dir: Path) -> tuple[dict[str, Any], set[str]]:
    """Figures of the cat collars, and the dates of their fixes.

    `fixes`; `outliers`, marked by algorithm or by hand, and each alone as
    `outliers_by_algorithm`, `outliers_by_hand`; `animals`, `tags` of the reference;
    `fixes_on_a_cat`, within the deployment of their tag, both ends included.
    """
    fixes = _csv(data_dir / "telemetry/cats_uk.csv")
    deployed = {row["tag_id"]: row for row in _csv(data_dir / "telemetry/cats_uk_reference.csv")}
    by_algorithm = [fix["algorithm_marked_outlier"] == "TRUE" for fix in fixes]
    by_hand = [fix["manually_marked_outlier"] == "TRUE" for fix in fixes]
    figures = {
        "fixes": len(fixes),
        "outliers": sum(a or b for a, b in zip(by_algorithm, by_hand, strict=True)),
        "outliers_by_algorithm": sum(by_algorithm),
        "outliers_by_hand": sum(by_hand),
        "animals": len({row["animal_id"] for row in deployed.values()}),
        "tags": len(deployed),
        "fixes_on_a_cat": sum(
            deployed[fix["tag_id"]]["deploy_on_date"]
            <= fix["timestamp"]
            <= deployed[fix["tag_id"]]["deploy_off_date"]
            for fix in fixes
            if fix["tag_id"] in deployed
        ),
    }
    return figures, {fix["timestamp"][:10] for fix in fixes}


def shelter_figures(data_dir: Path) -> dict[str, Any]:
    """Figures of the shelter.

    `visits`, stays; `animals`; `animals_by_visits`, number of animals by their number
    of stays; `animals_with_several_visits`; `marked_duplicate`, stays that the source
    says were entered twice; `animals_that_return`, animals that came in on at least
    two days, such stays aside; `open_visits`, without an outcome date;
    `most_visits`, stays of the animal with the most.
    """
    stays = pq.read_table(data_dir / "visits/longbeach_animal_shelter.parquet").to_pylist()
    visits = Counter(stay["animal_id"] for stay in stays)
    days: dict[str, set[Any]] = defaultdict(set)
    for stay in stays:
        if stay["outcome_type"] != "duplicate":
            days[stay["animal_id"]].add(stay["intake_date"])
    return {
        "visits": len(stays),
        "animals": len(visits),
        "animals_by_visits": dict(sorted(Counter(visits.values()).items())),
        "animals_with_several_visits": sum(number > 1 for number in visits.values()),
        "animals_that_return": sum(len(seen) > 1 for seen in days.values()),
        "marked_duplicate": sum(stay["outcome_type"] == "duplicate" for stay in stays),
        "open_visits": sum(stay["outcome_date"] is None for stay in stays),
        "most_visits": max(visits.values()),
        "last_day": max(
            day for stay in stays for day in (stay["intake_date"], stay["outcome_date"]) if day
        ).isoformat(),
    }


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))

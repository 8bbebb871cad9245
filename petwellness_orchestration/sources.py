"""Where records and telemetry come from under the current settings.

The simulated fleet by default; the real files of a folder when one is set, and
then nothing stands in for them. Assets and commands call this; the sources
themselves are `ingestion.simulator` and `ingestion.extracts`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from petwellness_orchestration.settings import TOPICS_SETTING, PlatformSettings, replayed_topics

if TYPE_CHECKING:
    from ingestion.extracts.model import Problem, RecordExtract
    from ingestion.simulator.fleet import Fleet

PROBLEMS_NAME = "source_problems.csv"
PUBLISHER_NAME = "publisher.json"


class PublisherDiedError(RuntimeError):
    """The process that published waves ended before they were all seen landed."""


class UncollectedTopicError(RuntimeError):
    """What would be replayed goes to a topic that no collector of these settings reads."""


def check_collected(settings: PlatformSettings) -> None:
    """Raise UncollectedTopicError if real files would be replayed into a topic that is not collected.

    Whoever publishes waits until it has landed, and would wait for ever.
    """
    replayed = () if settings.source.data is None else replayed_topics()
    uncollected = [topic for topic in replayed if topic not in settings.topics]
    if uncollected:
        raise UncollectedTopicError(
            f"the files of PETWELLNESS_DATA are replayed to {', '.join(uncollected)}, which no collector reads:"
            f" set {TOPICS_SETTING}={','.join((*settings.topics, *uncollected))}"
        )


def fleet(settings: PlatformSettings) -> Fleet:
    """The simulated fleet of the settings."""
    from ingestion.simulator.config import FleetConfig
    from ingestion.simulator.fleet import Fleet

    source = settings.source
    return Fleet(
        FleetConfig(
            seed=source.fleet_seed,
            collars=source.fleet_collars,
            households=source.fleet_households,
            clinics=source.fleet_clinics,
            days=source.fleet_days,
            start=source.fleet_start,
        )
    )


def read_records(settings: PlatformSettings) -> tuple[list[RecordExtract], list[Problem]]:
    """All record extracts the source offers, and the rows that do not fit.

    Raises ingestion.extracts.model.SourceError naming file and column, or folder.
    """
    if settings.source.data is None:
        return fleet(settings).record_extracts(), []
    from ingestion.extracts.load import load_all

    read = load_all(settings.source.data)
    return read.extracts, read.problems


def waves(settings: PlatformSettings) -> Iterator[tuple[str, Iterable[Any]]]:
    """The telemetry waves of the source in order of receipt: id and batches of messages."""
    if settings.source.data is None:
        simulated = fleet(settings)
        for day in range(simulated.config.days):
            yield simulated.wave_id(day), simulated.telemetry_wave(day)
        return
    from ingestion.extracts.replay import telemetry_messages

    yield from telemetry_messages(settings.source.data).items()


def write_problems(home: Path, problems: list[Problem]) -> Path:
    """Write what did not fit as CSV (file, row, reason, detail, set_aside); returns the path."""
    path = home / PROBLEMS_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = ["file", "row", "reason", "detail", "set_aside"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(asdict(problem) for problem in problems)
    return path


def write_truth(settings: PlatformSettings) -> None:
    """Write what the simulator planted beside the state; real files have no such truth."""
    if settings.source.data is not None:
        return
    from ingestion.simulator.truth import write_truth

    write_truth(fleet(settings).truth(), settings.state.truth_dir)


class PublisherStatus(msgspec.Struct, frozen=True):
    """What the process that publishes waves is doing: `publishing`, `landed` or `live`."""

    pid: int
    state: str


def write_publisher_status(home: Path, state: str) -> None:
    """Say what this process publishes, for drains that have to wait for it."""
    path = home / PUBLISHER_NAME
    home.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(PublisherStatus(os.getpid(), state)))
    os.replace(fresh, path)


def clear_publisher_status(home: Path) -> None:
    """This process publishes no more."""
    (home / PUBLISHER_NAME).unlink(missing_ok=True)


def publisher_is_through(home: Path) -> bool:
    """Whether no process has waves left that a drain has to wait for.

    Raises PublisherDiedError when one ended in the middle.
    """
    from ingestion.broker.embedded import process_runs

    try:
        status = msgspec.json.decode((home / PUBLISHER_NAME).read_bytes(), type=PublisherStatus)
    except FileNotFoundError:
        return True
    if status.state != "publishing":
        return True
    if not process_runs(status.pid):
        clear_publisher_status(home)
        raise PublisherDiedError(
            f"the publisher (process {status.pid}) ended before its waves had landed; start it again"
        )
    return False

"""Where records and telemetry come from under the current settings.

The simulated fleet by default; the real files of a folder when one is set, and
then nothing stands in for them. Assets and commands call this; the sources
themselves are `simulation` and `ingestion.extracts`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from petwellness_orchestration.settings import TOPICS_SETTING, PlatformSettings, replayed_topics

if TYPE_CHECKING:
    from ingestion.extracts.model import Problem, RecordExtract
    from simulation.fleet import Fleet

PROBLEMS_NAME = "source_problems.csv"
PUBLISHER_NAME = "publisher.json"


class PublisherDiedError(RuntimeError):
    """The process that published waves ended before they were all seen landed."""


class PublisherRunsError(RuntimeError):
    """Another process publishes waves from the same state folder."""


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
    from simulation.config import FleetConfig
    from simulation.fleet import Fleet

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
    from simulation.truth import write_truth

    write_truth(fleet(settings).truth(), settings.state.truth_dir)


class PublisherStatus(msgspec.Struct, frozen=True):
    """What the process that publishes waves is doing: `publishing` or `landed`."""

    pid: int
    state: str


@contextmanager
def publishing(home: Path) -> Iterator[Callable[[], None]]:
    """Say that this process has waves that a drain has to wait for; call what it gives when all have landed.

    True as long as a lock beside the status is held: the process id in it may be another process's by now. Raises
    PublisherRunsError.
    """
    from ingestion.broker.embedded import CardLock

    path = home / PUBLISHER_NAME
    lock = CardLock(path)
    if not lock.hold():
        running = read_publisher_status(home)
        whose = f" (process {running.pid})" if running is not None else ""
        raise PublisherRunsError(
            f"another process{whose} publishes waves from {home}; wait for it or stop it"
        )
    try:
        _write_publisher_status(path, "publishing")
        yield lambda: _write_publisher_status(path, "landed")
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _write_publisher_status(path: Path, state: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(PublisherStatus(os.getpid(), state)))
    os.replace(fresh, path)


def read_publisher_status(home: Path) -> PublisherStatus | None:
    """What a publisher of the state folder said last, also one that was killed; None when nobody says anything."""
    try:
        return msgspec.json.decode((home / PUBLISHER_NAME).read_bytes(), type=PublisherStatus)
    except FileNotFoundError:
        return None


def publisher_is_through(home: Path) -> bool:
    """Whether no process has waves left that a drain has to wait for.

    Raises PublisherDiedError, once, when one ended in the middle.
    """
    from ingestion.broker.embedded import CardLock

    status = read_publisher_status(home)
    if status is None or status.state != "publishing":
        return True
    # Who ended well, or began, between the two looks has changed the status.
    if CardLock(home / PUBLISHER_NAME).is_held() or read_publisher_status(home) != status:
        return False
    (home / PUBLISHER_NAME).unlink(missing_ok=True)
    raise PublisherDiedError(
        f"the publisher (process {status.pid}) ended before its waves had landed; start it again"
    )

"""dbt in the run's own process: one invocation, its events, its connections closed.

In process because importing dbt and parsing the project again in a child costs
7 s a run (17 s against 10 s on the same graph), and because DuckDB takes one
writing process. Nothing of Dagster's graph lives here.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from petwellness_orchestration.settings import DBT_PROJECT_DIR, PlatformSettings
from warehouse.environments import LAYERS

RESULT_EVENTS = frozenset({"LogSeedResult", "LogModelResult", "LogSnapshotResult", "LogTestResult"})


# dbt keeps its connections, adapters and flags by process and reads the warehouse's path from
# the environment: of two runs in one process the second waits.
_ONE_AT_A_TIME = threading.Lock()


class DbtFailedError(RuntimeError):
    """dbt did not finish: the message names the failed nodes and the first error."""


@dataclass(frozen=True)
class NodeRun:
    """What became of one node: dbt's status, when it started (naive UTC; None: it did not), seconds, and for
    a test the rows that failed."""

    unique_id: str
    status: str
    started_at: datetime | None
    duration_s: float
    failures: int | None


@dataclass
class DbtRun:
    """What one invocation reported: result events as dbt's own dictionaries, its nodes, the failed ones, an error."""

    events: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[NodeRun] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    error: str | None = None

    @property
    def succeeded(self) -> bool:
        return not self.failures and self.error is None


def run_dbt(
    settings: PlatformSettings,
    command: list[str],
    variables: Mapping[str, Any],
    target_path: Path,
    progress: Callable[[str], None] = lambda _: None,
    target: str | None = None,
    project: Any = None,
) -> DbtRun:
    """Run `dbt <command>` on the platform's warehouse (or another `target`) with a target path of its own.

    Without `project` (`manifest.parsed_project`) dbt parses it first, which takes longer than most
    increments. The warehouse file must not be open in this process; it is closed again on return. A second
    call, from another thread, waits for the first.
    """
    from dbt.cli.main import dbtRunner
    from dbt_common.events.base_types import EventMsg

    run = DbtRun()

    def on_event(message: EventMsg) -> None:
        if message.info.name not in RESULT_EVENTS:
            return
        event = _as_dict(message)
        run.events.append(event)
        if message.info.name != "LogTestResult":
            progress(short_line(event["info"]["msg"]))

    arguments = [
        *command,
        *project_arguments(settings, target),
        "--target-path", str(target_path),
        "--log-path", str(target_path),
        "--vars", json.dumps(dict(variables)),
        "--quiet",
        # Every event is read above, and an error raised: nobody reads dbt's lines, which cost a tenth of a small build.
        "--log-level", "none", "--log-level-file", "none",
    ]  # fmt: skip
    with _ONE_AT_A_TIME, dbt_environment(settings):
        result = dbtRunner(manifest=project, callbacks=[on_event]).invoke(arguments)
    if result.exception is not None:
        run.error = str(result.exception)
    for node in getattr(result.result, "results", None) or []:
        run.nodes.append(_node_run(node))
        if node.status in ("error", "fail", "runtime error"):
            run.failures.append(f"{node.node.name}: {(node.message or '').strip()}")
    return run


def dbt_variables(
    days: Collection[date] | None,
    as_of_ts: datetime | None,
    run_id: str,
    build_seq: int = 0,
    tests_every_day: bool = False,
) -> dict[str, Any]:
    """dbt variables of one invocation: the event days it is about (None: all), the data's own present (None: no
    data), the run that it is for, and the build's number. Its tests look at the same days, unless at every one."""
    return {
        "run_id": run_id,
        "build_seq": build_seq,
        "dirty_days": None if days is None else [day.isoformat() for day in days],
        **({"tested_days": None} if tests_every_day else {}),
        "as_of_ts": None if as_of_ts is None else f"{as_of_ts:%Y-%m-%d %H:%M:%S}",
    }


def profile_variables(settings: PlatformSettings) -> dict[str, str]:
    """What dbt's profile (dbt_project/profiles.yml) reads of an environment: the warehouse's file, or as whom and
    where in the account. Account, user and key are not among them: those are settings of their own. With them goes
    what the project's one rule of consent takes silence for (macros/consent.sql), and the home zone (macros/zones.sql)."""
    rules = {
        "PETWELLNESS_CONSENT_ANALYTICS_DEFAULT": settings.analytics_default.value,
        "PETWELLNESS_TIMEZONE": settings.operations.timezone,
    }
    session = settings.dbt_session
    if session is None:
        return rules | {
            "PETWELLNESS_DUCKDB_PATH": str(settings.state.warehouse_path),
            "PETWELLNESS_DBT_SCHEMA": LAYERS[0],
        }
    return rules | {
        "PETWELLNESS_SNOWFLAKE_DATABASE": session.database,
        "PETWELLNESS_SNOWFLAKE_ROLE": session.role,
        "PETWELLNESS_SNOWFLAKE_WAREHOUSE": session.warehouse,
        "PETWELLNESS_SNOWFLAKE_TELEMETRY_WAREHOUSE": session.telemetry_warehouse,
        "PETWELLNESS_DBT_SCHEMA": session.schema,
    }


def project_arguments(settings: PlatformSettings, target: str | None = None) -> list[str]:
    """Which project, profile and target (the environment's unless given) a dbt command is about."""
    return [
        *("--project-dir", str(DBT_PROJECT_DIR)),
        *("--profiles-dir", str(DBT_PROJECT_DIR)),
        *("--target", target or settings.environment.dbt_target),
    ]


@contextmanager
def dbt_environment(settings: PlatformSettings) -> Iterator[None]:
    """Tell dbt's profile which warehouse it is; close dbt's connections at the end."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager

    with environment_set(profile_variables(settings)):
        try:
            yield
        finally:
            DuckDBConnectionManager.close_all_connections()


@contextmanager
def environment_set(variables: Mapping[str, str]) -> Iterator[None]:
    """These environment variables, and afterwards what was there before: dbt's profile reads nothing else."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _node_run(result: Any) -> NodeRun:
    starts = [timing.started_at for timing in result.timing if timing.started_at is not None]
    return NodeRun(
        unique_id=result.node.unique_id,
        status=str(result.status),
        started_at=min(starts).replace(tzinfo=None) if starts else None,
        duration_s=result.execution_time,
        failures=getattr(result, "failures", None),
    )


def output_folder(home: Path, run_id: str) -> Path:
    """Where the dbt invocation of a run leaves its logs and artifacts."""
    return home / "dbt" / run_id


def short_line(message: str) -> str:
    """dbt's line on a node without the dots it pads with."""
    return re.sub(r" \.{3,} ", " ", message.strip())


def _as_dict(message: Any) -> dict[str, Any]:
    from dbt_common.events.functions import msg_to_dict

    return msg_to_dict(message)

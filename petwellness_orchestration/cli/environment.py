"""`petwellness environment` and `petwellness dbt`: which environment this is, and dbt in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from petwellness_orchestration.settings import PlatformSettings, load_settings

# Commands of dbt that make tables.
_BUILDING = frozenset({"build", "run", "seed"})

# What dbt signs in with (dbt_project/profiles.yml): named here, never shown.
SIGN_IN = (
    "PETWELLNESS_SNOWFLAKE_ACCOUNT",
    "PETWELLNESS_SNOWFLAKE_USER",
    "PETWELLNESS_SNOWFLAKE_PRIVATE_KEY_PATH",
)


def show_environment() -> int:
    """Print the chosen environment and where its parts are."""
    for name, value in described(load_settings()).items():
        print(f"{name:<12} {value}")
    return 0


def described(settings: PlatformSettings) -> dict[str, str]:
    """The environment in words, without a secret: of what signs in only whether it is set, of addresses no
    user or password."""
    chosen = settings.environment
    session = settings.dbt_session
    if session is None:
        place = {"warehouse": f"duckdb, {settings.state.warehouse_path}"}
    else:
        missing = [name for name in SIGN_IN if not os.environ.get(name)]
        place = {
            "warehouse": f"snowflake, database {session.database}",
            "dbt": f"schema {session.schema}, role {session.role}, warehouse {session.warehouse}",
            "sign-in": f"not set: {', '.join(missing)}" if missing else "set",
        }
    asked = settings.operations.automation is not None
    return {
        "environment": f"{chosen.name}{' (production)' if chosen.is_production else ''}",
        **place,
        "dbt target": chosen.dbt_target,
        "lake": settings.lake.resolved_url(settings.state.home),
        "broker": settings.broker.bootstrap_servers or "embedded",
        "records": str(settings.source.data or "simulated fleet"),
        "consent": f"analytics: {settings.analytics_default.value} where an owner has not said it",
        "state": str(settings.state.home),
        "runs in": "PostgreSQL" if settings.operations.dagster_postgres_url else "SQLite",
        "automation": f"{'on' if settings.has_automation else 'off'}{' (PETWELLNESS_AUTOMATION)' if asked else ''}",
    }


def become_dbt(arguments: list[str]) -> NoReturn:
    """Be dbt from now on, on the environment's project, target and schema.

    Raises DeclarationError before anything is built of a project that the platform would refuse.
    """
    from petwellness_orchestration.defs.warehouse.dbt_run import profile_variables, project_arguments
    from petwellness_orchestration.defs.warehouse.manifest import read_manifest

    settings = load_settings()
    if _BUILDING.intersection(arguments):
        read_manifest()
    program = str(Path(sys.executable).with_name("dbt"))
    os.execve(  # noqa: S606
        program,
        [program, *arguments, *project_arguments(settings)],
        {**os.environ, **profile_variables(settings)},
    )


def use_data(data: Path | None) -> None:
    """Make a folder of real files the source of this process and those it starts, in a state of its own.

    Real and simulated records never share a lake: without PETWELLNESS_HOME the
    state goes to `.petwellness/real`.
    """
    if data is None:
        return
    if not data.is_dir():
        from ingestion.extracts.model import MissingSourceError

        raise MissingSourceError(f"data folder '{data}' does not exist; give the folder of the real files")
    os.environ["PETWELLNESS_DATA"] = str(data.expanduser().absolute())
    os.environ.setdefault("PETWELLNESS_HOME", str(Path(".petwellness/real").absolute()))

"""`petwellness dagster ...`: Dagster in separate processes, as containers run them. `dev` starts them in one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from petwellness_orchestration.cli.signals import restore_stop_signals

dagster = typer.Typer(
    help="Code location, web UI and daemon as processes of their own. They share an instance: the state folder,"
    " or PostgreSQL by PETWELLNESS_DAGSTER_POSTGRES_URL. There is one daemon; there may be several of the others.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

CODE_PORT = 4000

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Code = Annotated[str, typer.Option("--code", help="Where the code location answers, host:port.")]


@dagster.command("code")
def code(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = CODE_PORT,
) -> None:
    """Serve the asset graph; runs are processes of this one."""
    from petwellness_orchestration.defs.warehouse.manifest import ensure_manifest

    _home()
    ensure_manifest()
    _become(
        *("dagster", "api", "grpc", "--module-name", "petwellness_orchestration.definitions"),
        *("--location-name", "petwellness", "--host", host, "--port", str(port)),
    )


@dagster.command("web")
def web(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the UI.", min=1, max=65535)] = 3000,
    code_server: Code = f"127.0.0.1:{CODE_PORT}",
) -> None:
    """Serve the UI. It asks nobody who they are: keep it behind something that does."""
    workspace = _workspace(code_server)
    _become("dagster_webserver", "--workspace", str(workspace), "--host", host, "--port", str(port))


@dagster.command("daemon")
def daemon(code_server: Code = f"127.0.0.1:{CODE_PORT}") -> None:
    """Run schedules, sensors and the queue of runs."""
    _become("dagster._daemon", "run", "--workspace", str(_workspace(code_server)))


def _home() -> Path:
    from petwellness_orchestration.instance import prepare_dagster_home
    from petwellness_orchestration.settings import load_settings

    settings = load_settings()
    prepare_dagster_home(settings)
    return settings.state.home


def _workspace(code_server: str) -> Path:
    from petwellness_orchestration.instance import write_workspace

    host, separator, port = code_server.rpartition(":")
    if not separator or not host or not port.isdigit():
        raise typer.BadParameter(f"'{code_server}' is not host:port", param_hint="--code")
    return write_workspace(_home(), (host, int(port)))


def _become(*module_and_arguments: str) -> NoReturn:
    """Be this Python module from now on, so that signals reach it and nothing stands between."""
    restore_stop_signals()
    # Dagster announces every preview API at each load of the code location.
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    os.execv(sys.executable, [sys.executable, "-m", *module_and_arguments])  # noqa: S606

"""Every command has help, and which errors become one line."""

import pytest
import typer.testing

from petwellness_orchestration.cli import expected_line
from petwellness_orchestration.cli.app import app

SUBCOMMANDS = sorted(
    command.name or (command.callback.__name__ if command.callback else "")
    for command in app.registered_commands
)


def test_the_parts_all_have_a_subcommand() -> None:
    promised = {"simulate", "replay", "collect", "load", "demo", "dev", "query"}
    assert promised <= set(SUBCOMMANDS)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_has_help(name: str) -> None:
    shown = typer.testing.CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0
    assert f"{name} [OPTIONS]" in shown.output
    [command] = [c for c in app.registered_commands if c.callback and c.callback.__name__ == name]
    assert command.callback is not None
    assert (command.callback.__doc__ or "").splitlines()[0][:40] in shown.output


@pytest.mark.parametrize("group", app.registered_groups, ids=lambda group: group.name)
def test_every_command_of_a_group_has_help(group: typer.models.TyperInfo) -> None:
    assert group.typer_instance is not None
    for command in group.typer_instance.registered_commands:
        assert command.name is not None
        shown = typer.testing.CliRunner().invoke(app, [group.name or "", command.name, "--help"])
        assert shown.exit_code == 0
        assert command.callback is not None
        assert (command.callback.__doc__ or "").splitlines()[0][:40] in shown.output


def test_only_the_platforms_own_errors_become_one_line() -> None:
    from lake.store import StoreUnreachableError

    assert expected_line(ValueError("a bug")) is None
    assert expected_line(StoreUnreachableError("lake\n is  down")) == "lake is down"
    outer = RuntimeError("a step failed")
    outer.__cause__ = StoreUnreachableError("lake is down")
    assert expected_line(outer) == "lake is down"

"""Plan and apply the Snowflake account of an environment: `python -m infrastructure.snowflake --help`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from infrastructure.snowflake import account as accounts
from infrastructure.snowflake import planning
from warehouse.environments import ProductionRefusedError, UnknownEnvironmentError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Databases, schemas, warehouses, roles, users, policies, stages and pipes, as SnowDDL makes them of"
    " infrastructure/snowflake/config. Without --offline it needs PETWELLNESS_SNOWDDL_* (docs/snowflake.md).",
)

Name = Annotated[
    str, typer.Argument(help=f"One of: {', '.join(accounts.ENVIRONMENTS)}.", metavar="ENVIRONMENT")
]


@app.command()
def plan(
    environment: Name,
    offline: Annotated[bool, typer.Option(help="For an empty account, without any: everything.")] = False,
    save: Annotated[
        bool,
        typer.Option(help="With --offline: to infrastructure/snowflake/plans, all of it or what differs."),
    ] = False,
) -> None:
    """Show what differs between the account and the configuration; changes nothing. Exits with 2 if anything does."""
    with _explained():
        where = accounts.environment_named(environment)
        if offline:
            if save:
                where.plan_file.write_text(planning.reviewed_text(where))
                typer.echo(f"written to {where.plan_file}")
            else:
                typer.echo(planning.text_of(planning.offline_plan(where).suggested), nl=False)
            return
        found = planning.live_plan(where, accounts.load_account())
    typer.echo(planning.text_of(found.suggested), nl=False)
    typer.echo(f"{len(found.suggested)} statements between '{environment}' and its configuration", err=True)
    raise typer.Exit(2 if found.suggested else 0)


@app.command()
def apply(
    environment: Name,
    unsafe: Annotated[bool, typer.Option(help="Alter and drop, too: read the plan first.")] = False,
    production: Annotated[bool, typer.Option(help="Needed where the environment is production.")] = False,
) -> None:
    """Create what is missing in the account; what would alter or drop is only shown."""
    with _explained():
        where = accounts.environment_named(environment)
        done = planning.apply(where, accounts.load_account(), unsafe, production)
    typer.echo(planning.text_of(done.suggested), nl=False)
    typer.echo(f"{len(done.done)} statements run, {len(done.suggested)} shown above and not run", err=True)


@contextmanager
def _explained() -> Iterator[None]:
    """Errors that a person can act on, without a traceback."""
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        for problem in error.errors():
            variable = f"{accounts.PREFIX}{'_'.join(str(part) for part in problem['loc']).upper()}"
            typer.echo(f"{variable}: {problem['msg']}", err=True)
        typer.echo("Set them (docs/snowflake.md), or plan with --offline.", err=True)
        raise typer.Exit(1) from error
    except (UnknownEnvironmentError, ProductionRefusedError, planning.PlanError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app(prog_name="python -m infrastructure.snowflake")

"""SnowDDL on our configuration: what would change, what changes, for an account or for an empty stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from typing import Any

from infrastructure.snowflake.account import (
    ENVIRONMENTS,
    FOLDER,
    AccountSettings,
    Environment,
    example_account,
)
from warehouse.environments import ProductionRefusedError

CONFIG = FOLDER / "config"

# What `apply` changes besides creating what is missing: without its policies a database is open. Resource monitors
# are ACCOUNTADMIN's to make, which our role is not: they are shown. Dropping and altering is left to `unsafe`.
ALWAYS_APPLIED = ("--apply-masking-policy", "--apply-row-access-policy")


class PlanError(RuntimeError):
    """SnowDDL could not make a plan, or not carry it out; its own words came before."""


class UnknownQuestionError(RuntimeError):
    """SnowDDL asked the stand-in something that an empty account has no answer to."""


@dataclass(frozen=True)
class Plan:
    """Statements in order: `done` were run, `suggested` were not."""

    done: tuple[str, ...]
    suggested: tuple[str, ...]


@cache
def offline_plan(environment: Environment) -> Plan:
    """Everything an empty account would get. Raises PlanError."""
    return _run(environment, example_account(), ["plan"], EmptyAccount)


def reviewed_text(environment: Environment) -> str:
    """What is kept of an environment's offline plan: production's whole, of any other what differs from it."""
    plan = offline_plan(environment).suggested
    if environment.is_production:
        return text_of(plan)
    [production] = [one for one in ENVIRONMENTS.values() if one.is_production]
    same_elsewhere = [
        statement.replace(f"{production.prefix}__", f"{environment.prefix}__")
        for statement in offline_plan(production).suggested
    ]
    own = _beyond(plan, same_elsewhere)
    missing = [statement.splitlines()[0] for statement in _beyond(same_elsewhere, plan)]
    return (
        f"-- As {production.plan_file.name}, under the prefix {environment.prefix}, but for these statements:\n\n"
        f"{text_of(own)}-- They stand for:\n{''.join(f'--   {line}{chr(10)}' for line in missing)}"
    )


def _beyond(statements: Sequence[str], others: Sequence[str]) -> list[str]:
    """Those that are not among the others, without SnowDDL's marks of pipes, which follow from their text."""
    elsewhere = {*others}
    return [one for one in statements if one not in elsewhere and not one.startswith("COMMENT ON PIPE")]


def configured_names(environment: Environment) -> list[str]:
    """Full names of every object of the configuration, as SnowDDL writes them."""
    app = _app(_arguments(environment, example_account(), ["plan"]), EmptyAccount)
    return sorted(name for by_name in app.config.blueprints.values() for name in by_name)


def live_plan(environment: Environment, account: AccountSettings) -> Plan:
    """What differs between the account and the configuration: its drift. Raises PlanError."""
    return _run(environment, account, ["plan"], None)


def apply(
    environment: Environment, account: AccountSettings, unsafe: bool = False, production: bool = False
) -> Plan:
    """Create what is missing; with `unsafe`, alter and drop, too.

    Raises ProductionRefusedError without `production` where it is, and PlanError.
    """
    if environment.is_production and not production:
        raise ProductionRefusedError(f"'{environment.name}' is production: say --production to change it")
    flags = [*ALWAYS_APPLIED, *(["--apply-unsafe"] if unsafe else [])]
    return _run(environment, account, [*flags, "apply"], None)


def text_of(statements: Sequence[str]) -> str:
    """A script of them, as a plan is kept and shown."""
    return "".join(f"{statement};\n\n" for statement in statements)


def _run(
    environment: Environment,
    account: AccountSettings,
    action: Sequence[str],
    connect: Callable[[], Any] | None,
) -> Plan:
    try:
        # What SnowDDL prints is what it returns here, in another form.
        with redirect_stdout(StringIO()):
            app = _app(_arguments(environment, account, action), connect)
            app.execute()
    except SystemExit as error:
        raise PlanError(f"SnowDDL ended with {error.code} for '{environment.name}'") from error
    return Plan(tuple(app.done), tuple(app.suggested))


def _arguments(environment: Environment, account: AccountSettings, action: Sequence[str]) -> list[str]:
    return [
        *("-c", str(CONFIG)),
        *("-a", account.account, "-u", account.user, "-k", str(account.private_key_path), "-r", account.role),
        *(["-w", account.warehouse] if account.warehouse else []),
        *(
            ["--passphrase", account.private_key_passphrase.get_secret_value()]
            if account.private_key_passphrase
            else []
        ),
        *("--env-prefix", environment.prefix),
        *("--placeholder-path", str(environment.values_file)),
        *("--placeholder-values", json.dumps(account.placeholders())),
        *("--query-tag", "petwellness-infrastructure"),
        # One worker: statements come in the same order every time.
        *("--max-workers", "1"),
        *("--log-level", "WARNING"),
        *action,
    ]


def _app(arguments: Sequence[str], connect: Callable[[], Any] | None) -> Any:
    from snowddl.app.base import BaseApp

    class App(BaseApp):
        """SnowDDL's command, with its arguments from here and its statements kept."""

        done: Sequence[str] = ()
        suggested: Sequence[str] = ()

        def init_arguments(self) -> dict[str, Any]:
            return vars(self.arg_parser.parse_args(arguments))

        def get_connection(self) -> Any:
            return connect() if connect else super().get_connection()

        def output_suggested_ddl(self, engine: Any) -> None:
            self.done, self.suggested = [*engine.executed_ddl], [*engine.suggested_ddl]

    return App()


class EmptyAccount:
    """Stands for an Enterprise account in which nothing was made: every SHOW is empty.

    Raises UnknownQuestionError for anything else it is asked, so that a plan is never made of a guess.
    """

    def cursor(self, *_: Any) -> EmptyCursor:
        return EmptyCursor()

    def close(self) -> None:
        pass


class EmptyCursor:
    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def execute(self, sql: str, **_: Any) -> EmptyCursor:
        words = sql.split()
        if "CURRENT_ACCOUNT()" in sql:
            self._rows = [_CONTEXT]
        elif sql.startswith("SHOW ROLES LIKE") and _CONTEXT["CURRENT_ROLE"] in sql.replace("\\", ""):
            # The administrator's own role of the environment, which SnowDDL would make even for a plan.
            self._rows = [{}]
        elif words[0] in ("SHOW", "USE"):
            self._rows = []
        else:
            raise UnknownQuestionError(" ".join(words)[:200])
        return self

    @property
    def rowcount(self) -> int:
        return len(self._rows)

    def fetchone(self) -> dict[str, Any] | None:
        return self._rows[0] if self._rows else None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)


_CONTEXT: dict[str, Any] = {
    "CURRENT_ACCOUNT": "EXAMPLE",
    "CURRENT_REGION": "EXAMPLE",
    "CURRENT_SESSION": "1",
    "CURRENT_USER": "SNOWDDL",
    "CURRENT_ROLE": "SNOWDDL_ADMIN",
    "CURRENT_WAREHOUSE": None,
    "IS_ACCOUNT_ADMIN": True,
    "IS_SYS_ADMIN": True,
    "IS_SECURITY_ADMIN": True,
    "BOOTSTRAP_ACCOUNT": json.dumps(
        {"serverVersion": "0.0.0", "accountInfo": {"serviceLevelName": "ENTERPRISE"}}
    ),
    "ACTIVE_BUNDLES": "[]",
}

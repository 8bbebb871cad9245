"""The `petwellness` command: one subcommand for each part of the platform.

Commands read settings from the environment, print progress, and turn the
platform's own errors into one line and exit code 1. What they do lives in the
modules beside this one and in the libraries; heavy imports happen there.
"""

from __future__ import annotations

import os
import stat
import sys

# Errors that name the thing and the fix: shown as one line, without a traceback.
_EXPECTED = (
    "AlertNotDeliveredError",
    "BrokerUnreachableError",
    "CatalogueDamagedError",
    "ChainNotMendedError",
    "CompactionError",
    "ConsentSnapshotStaleError",
    "DbtFailedError",
    "DeclarationError",
    "EmbeddedBrokerError",
    "EnvironmentSettingError",
    "LandingStalledError",
    "LoadMismatchError",
    "MetricsPortError",
    "MqttError",
    "NewerSchemaError",
    "NotOnThisWarehouseError",
    "PublishError",
    "PublishedCopyMissingError",
    "PublisherDiedError",
    "PublisherRunsError",
    "PurgeError",
    "QuarantineRequestError",
    "QueryFailedError",
    "ReasonError",
    "RejectFilterError",
    "ReplayDecoderMissingError",
    "RestoreError",
    "RetentionPolicyError",
    "RowsDifferError",
    "SnowflakeError",
    "SourceError",
    "StoreError",
    "TierProofError",
    "UnknownColumnsError",
    "UnknownHouseholdError",
    "UnknownSpanError",
    "UnknownTableError",
    "UncollectedTopicError",
    "UnknownTopicError",
    "WarehouseUnreachableError",
)


def main() -> None:
    """Entry point of the console command."""
    from petwellness_orchestration.cli.app import app

    try:
        keep_state_private()
        app()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        line = expected_line(error)
        if line is None:
            raise
        print(f"petwellness: {line}", file=sys.stderr)
        sys.exit(1)


def keep_state_private() -> None:
    """What this process and those it starts write is for its user only; so is a state folder that is there already.

    Names and addresses of people are in the lake, the warehouse and the truth beside them.
    """
    from contracts.settings import StateSettings

    os.umask(0o077)
    home = StateSettings().home
    if not home.is_dir():
        return
    found = home.stat()
    # An older version left it open. A folder that only happens to be named, or is another user's, is not ours to close.
    is_state = any((home / name).exists() for name in ("lake", "warehouse.duckdb", "dagster", "salt"))
    if is_state and found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
        home.chmod(stat.S_IMODE(found.st_mode) & ~0o077)


def expected_line(error: BaseException) -> str | None:
    """The one line to show for an error of the platform's own (or one caused by it); else None."""
    from pydantic import ValidationError

    cause: BaseException | None = error
    while cause is not None:
        if any(kind.__name__ in _EXPECTED for kind in type(cause).__mro__):
            return " ".join(str(cause).split())
        if isinstance(cause, ValidationError):
            first = cause.errors()[0]
            return f"setting {cause.title}.{'.'.join(map(str, first['loc']))}: {first['msg']}"
        cause = cause.__cause__
    return None

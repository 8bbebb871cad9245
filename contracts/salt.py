"""The salt of hashed identifiers: where it comes from and where the warehouse keeps it.

SQL never spells it out. dbt writes the SQL of every statement to its logs and
artifacts, so a salt inside it would lie beside the hashes it protects; models
read it from `raw.hash_salt`, which only they and the loader see.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from contracts.personal_data import MIN_SALT_LENGTH
from contracts.settings import StateSettings

SALT_FILE = "salt"


class SaltError(ValueError):
    """The salt is too short, or not the one that the warehouse was built with; the message says what to do."""


def salt_of(settings: StateSettings) -> str:
    """The salt of PETWELLNESS_SALT, else the one that the state folder keeps, made at random at first use.

    A rebuild needs the same salt to give the same hashes. Raises SaltError for one too short.
    """
    if settings.salt is None:
        return _kept_salt(settings.home / SALT_FILE)
    salt = settings.salt.get_secret_value()
    if len(salt) < MIN_SALT_LENGTH:
        raise SaltError(f"PETWELLNESS_SALT has {len(salt)} characters; give at least {MIN_SALT_LENGTH}")
    return salt


def _kept_salt(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Only its owner may read it, from the first moment on.
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return path.read_text()
    with os.fdopen(handle, "w") as file:
        salt = secrets.token_hex(32)
        file.write(salt)
    return salt


def is_new_salt(kept: Sequence[tuple[str, ...]], salt: str) -> bool:
    """Whether a warehouse that keeps `kept` has yet to get its salt.

    Raises SaltError when it has another: its hashes would no longer match.
    """
    if kept and list(kept) != [(salt,)]:
        raise SaltError(
            "the warehouse was built with another salt, so its hashes would stop matching: set the"
            " PETWELLNESS_SALT of then, or `petwellness rebuild --yes` with the new one"
        )
    return not kept

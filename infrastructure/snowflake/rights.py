"""What each role can do by a plan: grants on future tables and views, followed through the roles it inherits.

Grants on single objects (`technical_role.yaml`) are not followed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

_FUTURE = re.compile(r'GRANT (\w+) ON FUTURE (?:TABLES|VIEWS) IN SCHEMA "[^"]+"\."([^"]+)" TO ROLE "([^"]+)"')
_INHERITED = re.compile(r'GRANT ROLE "([^"]+)" TO ROLE "([^"]+)"')
READING = frozenset({"SELECT", "OWNERSHIP"})
WRITING = frozenset({"INSERT", "UPDATE", "DELETE", "OWNERSHIP"})


def reach(plan: Iterable[str]) -> dict[str, set[tuple[str, str]]]:
    """By business role, in lower case and without prefix: the (privilege, schema) pairs it has on what a schema holds."""
    granted: dict[str, set[tuple[str, str]]] = defaultdict(set)
    inherits: dict[str, set[str]] = defaultdict(set)
    for statement in plan:
        if found := _INHERITED.match(statement):
            inherits[found[2]].add(found[1])
        if found := _FUTURE.match(statement):
            granted[found[3]].add((found[1], found[2].lower()))

    def of(role: str) -> set[tuple[str, str]]:
        return granted[role].union(*(of(below) for below in inherits[role]))

    return {
        re.sub(r"^[A-Z]+__|__B_ROLE$", "", role).lower(): of(role)
        for role in [*inherits]
        if role.endswith("__B_ROLE")
    }


def schemas_with(privileges: Iterable[tuple[str, str]], wanted: Iterable[str]) -> set[str]:
    """Schemas on which at least one of the wanted privileges is held."""
    return {schema for privilege, schema in privileges if privilege in wanted}

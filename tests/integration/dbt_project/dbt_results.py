"""What a dbt run says of its nodes, in words a failing test can show."""

from typing import Any

# `no-op` is what `dbt build` says of an exposure: there is nothing to build.
FINE = frozenset({"success", "pass", "skipped", "no-op"})


def failed_nodes(outcome: Any) -> list[str]:
    """The nodes of a `dbtRunner` outcome that did not do what they should, each with dbt's own message."""
    return [
        f"{item.node.unique_id}: {item.status} {item.message}"
        for item in getattr(outcome.result, "results", None) or []
        if str(item.status) not in FINE
    ]

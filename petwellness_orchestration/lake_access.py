"""The lake that the platform's settings name. What a store is and does is `lake.store`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lake.store import ObjectStore
    from petwellness_orchestration.settings import PlatformSettings


def open_lake(settings: PlatformSettings) -> ObjectStore:
    """The lake; nothing is contacted. Raises StoreUnreachableError for an address of no kind of lake."""
    from lake.store import open_store

    return open_store(settings.lake, settings.state.home)


def reach_lake(settings: PlatformSettings) -> ObjectStore:
    """The lake, which has answered. Raises StoreUnreachableError naming the address and the setting."""
    store = open_lake(settings)
    store.check()
    return store

"""What real input has to get right, counted over the platform's own tables."""

from __future__ import annotations

from typing import Any

from petwellness_orchestration.settings import PlatformSettings


def compute(settings: PlatformSettings) -> dict[str, Any]:
    return {}

"""Text and delivery of alerts. Who is alerted of what is decided in `defs/operations`."""

from __future__ import annotations

import json
import urllib.request
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from pydantic import SecretStr

WEBHOOK_TIMEOUT_S = 10


class AlertNotDeliveredError(RuntimeError):
    """The webhook did not take the alert; the message names host and setting, not the secret path."""


def failure_message(job_name: str, run_id: str, reason: str) -> str:
    """One line on a failed run: job, run, first line of the reason."""
    first_line = reason.strip().splitlines()[0] if reason.strip() else "no reason given"
    return f"run {run_id} of job '{job_name}' failed: {first_line}"


def post_webhook(url: SecretStr, message: str) -> None:
    """POST `{"text": message}` as JSON. Raises AlertNotDeliveredError, which is without a cause: that may repeat the
    address, and errors of a sensor are shown to everybody."""
    address = url.get_secret_value()
    try:
        request = urllib.request.Request(  # noqa: S310 - the address is the operator's own setting
            address,
            data=json.dumps({"text": message}).encode(),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT_S):  # noqa: S310
            return
    except (OSError, HTTPException, ValueError) as error:
        why = _without_address(error)
    raise AlertNotDeliveredError(
        f"the webhook at {_host(address)} did not take the alert ({why}); change PETWELLNESS_ALERT_WEBHOOK_URL"
    )


def _without_address(error: Exception) -> str:
    """Why a post failed, in words that do not come from the address."""
    if isinstance(error, HTTPError):
        return f"HTTP status {error.code}"
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return type(reason).__name__


def _host(address: str) -> str:
    """Host and port of an address."""
    try:
        parts = urlsplit(address)
        return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or "an unnamed host"
    except ValueError:
        return "an unnamed host"

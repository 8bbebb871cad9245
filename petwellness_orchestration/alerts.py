"""Text and delivery of alerts. Who is alerted of what is decided in `defs/operations`."""

from __future__ import annotations

import json
import urllib.request

WEBHOOK_TIMEOUT_S = 10


class AlertNotDeliveredError(RuntimeError):
    """The webhook did not take the alert; the message names host and setting, not the secret path."""


def failure_message(job_name: str, run_id: str, reason: str) -> str:
    """One line on a failed run: job, run, first line of the reason."""
    first_line = reason.strip().splitlines()[0] if reason.strip() else "no reason given"
    return f"run {run_id} of job '{job_name}' failed: {first_line}"


def post_webhook(url: str, message: str) -> None:
    """POST `{"text": message}` as JSON. Raises AlertNotDeliveredError."""
    request = urllib.request.Request(  # noqa: S310 - the address is the operator's own setting
        url,
        data=json.dumps({"text": message}).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT_S):  # noqa: S310
            return
    except OSError as error:
        raise AlertNotDeliveredError(
            f"the webhook at {request.host} did not take the alert ({error});"
            " change PETWELLNESS_ALERT_WEBHOOK_URL"
        ) from error

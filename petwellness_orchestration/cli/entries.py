"""What people enter into the lake's ledgers for good: why, and who says so. The ledgers are `lake`."""

from __future__ import annotations

import getpass

MAX_REASON = 200


class ReasonError(ValueError):
    """The reason of an entry, or who makes it, is missing or could name a person."""


def checked_reason(reason: str, what: str = "an erasure") -> str:
    """A reason fit to be kept for good. Raises ReasonError for one that is empty, long or holds an address."""
    text = " ".join(reason.split())
    if not text:
        raise ReasonError(f"{what} needs a reason; give --reason, for example the number of the request")
    if len(text) > MAX_REASON or "@" in text:
        raise ReasonError(
            f"the reason is kept for good: at most {MAX_REASON} characters and no e-mail address; "
            "give the number of the request instead of its text"
        )
    return text


def checked_person(by: str | None) -> str:
    """Who makes an entry, fit to be kept for good; None is the user of the system.

    Raises ReasonError for nobody, a long text or an address.
    """
    text = " ".join((getpass.getuser() if by is None else by).split())
    if not text or len(text) > MAX_REASON or "@" in text:
        raise ReasonError(
            "an entry needs the person who makes it; give --by with a staff number or initials, "
            f"at most {MAX_REASON} characters and no e-mail address"
        )
    return text

"""How long records that a practice must keep stay, by jurisdiction."""

from datetime import datetime

import pyarrow as pa
import pytest

from contracts.keeping import (
    KEPT_FEEDS,
    TERMS,
    Begin,
    Jurisdictions,
    RecordType,
    Term,
    UnknownJurisdictionError,
    has_to_stay,
    kept_until,
)
from contracts.registry import RECORD_FEED_NAMES
from lake.landing import feed_schema

VISIT = datetime(2024, 2, 29, 17, 30)


def test_every_kept_feed_names_a_pet_and_has_a_term_everywhere() -> None:
    assert KEPT_FEEDS.keys() <= {*RECORD_FEED_NAMES}
    assert {feed for feed in KEPT_FEEDS if "pet_id" not in feed_schema(feed).names} == set()
    missing = [(name, kind) for name, terms in TERMS.items() for kind in RecordType if not terms[kind].source]
    assert missing == []


@pytest.mark.parametrize(
    ("term", "until"),
    [
        (Term(3, Begin.LAST_VISIT, "x"), datetime(2027, 3, 2)),
        (Term(4, Begin.LAST_VISIT, "x"), datetime(2028, 3, 1)),
        (Term(4, Begin.YEAR_END, "x"), datetime(2029, 1, 1)),
    ],
)
def test_a_term_ends_after_its_anniversary(term: Term, until: datetime) -> None:
    assert kept_until(term, VISIT) == until


@pytest.mark.parametrize(
    ("jurisdictions", "clinics", "name"),
    [
        (Jurisdictions("US-CA"), ["c1", None], "US-CA"),
        (Jurisdictions("US-CA", {"c2": "US-TX"}), ["c1"], "US-CA"),
        (Jurisdictions("US-CA", {"c2": "US-TX"}), ["c1", "c2"], "US-TX"),
        (Jurisdictions("US-TX", {"c2": "US-CA"}), ["c2"], "US-CA"),
        (Jurisdictions("US-TX"), [], "US-TX"),
        # Nobody has said whose terms hold.
        (Jurisdictions(), ["c1"], "CH-ZH"),
        (Jurisdictions(None, {"c1": "US-CA"}), ["c1"], "US-CA"),
    ],
)
def test_of_a_pets_clinics_the_longest_term_holds(
    jurisdictions: Jurisdictions, clinics: list[str | None], name: str
) -> None:
    found, term, until = jurisdictions.strictest(RecordType.CLINICAL, clinics, VISIT)
    assert (found, term) == (name, TERMS[name][RecordType.CLINICAL])
    assert until == kept_until(term, VISIT)


def test_a_jurisdiction_without_terms_is_refused() -> None:
    with pytest.raises(UnknownJurisdictionError, match="'XX'; known: CH-ZH, US-CA, US-TX"):
        Jurisdictions("CH-ZH", {"c1": "XX"})


def test_what_did_not_take_place_need_not_be_kept() -> None:
    status = pa.table({"status": ["completed", None, "no_show", "cancelled", "scheduled"]})
    assert has_to_stay("clinic_visits", status).tolist() == [True, True, False, False, False]
    assert has_to_stay("visit_documents", pa.table({"pet_id": ["p1"]})).tolist() == [True]
    assert has_to_stay("appointments", status).tolist() == [False] * 5

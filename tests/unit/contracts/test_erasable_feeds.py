"""A feed of which an erasure could find nothing is refused where it is defined, unless it says why that is right."""

import pyarrow as pa
import pytest

from contracts.columns import (
    HOUSEHOLD_COLUMNS,
    RECORD_FEEDS,
    RECORD_REFERENCES,
    WITHOUT_HOUSEHOLD,
    UnerasableFeedError,
    check_erasable,
)


def fields(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.string()) for name in names]


def test_the_feeds_of_the_contract_can_be_erased_or_say_why_not() -> None:
    check_erasable(RECORD_FEEDS, WITHOUT_HOUSEHOLD)


@pytest.mark.parametrize("column", HOUSEHOLD_COLUMNS)
def test_a_feed_that_names_a_household_passes(column: str) -> None:
    check_erasable({"invoices": fields("invoice_id", column)}, {})


def test_a_feed_that_names_none_is_refused_until_it_says_so() -> None:
    feeds = {"surveys": fields("survey_id", "answer", "phone_called")}
    with pytest.raises(
        UnerasableFeedError, match=r"'surveys' .*owner_id, pet_id, .*WITHOUT_HOUSEHOLD.*columns\.py"
    ):
        check_erasable(feeds, {})
    with pytest.raises(UnerasableFeedError, match="surveys"):
        check_erasable(feeds, {"surveys": ""})
    check_erasable(feeds, {"surveys": "answers are counted before they are handed over"})


def test_a_feed_that_says_it_holds_nobodys_data_and_names_them_is_refused() -> None:
    with pytest.raises(UnerasableFeedError, match=r"'invoices' names households by owner_id"):
        check_erasable({"invoices": fields("invoice_id", "owner_id")}, {"invoices": "amounts"})


def test_a_statement_about_no_feed_is_refused() -> None:
    with pytest.raises(UnerasableFeedError, match="no feed is called clinic"):
        check_erasable({"pets": fields("pet_id")}, {"clinic": "practices"})


def test_what_a_record_refers_to_can_itself_be_found() -> None:
    assert not set(RECORD_REFERENCES.values()) & set(WITHOUT_HOUSEHOLD)

"""What counts as personal data in a text, and what only looks like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.personal_data import ADDRESS, EMAIL, MICROCHIP, NAME, PHONE, SALT, Detector, Known, masked

KNOWN = Known(
    names=("Ada Abel", "Zoë O'Hara-Müller", "Prisca"),
    phones=("+1-200-555-0147", "044 123 45 67"),
    addresses=("Linden Lane 12, 8001 Exampleton", "Altstadt"),
    microchips=("756098100123456",),
    salts=("pepper-and-salt", "short"),
)
DETECTOR = Detector(KNOWN)


def kinds(text: str, detector: Detector = DETECTOR) -> list[str]:
    return sorted(match.kind for match in detector.find(text))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to ada.a+pets@mail.example.org today", EMAIL),
        ("ADA@EXAMPLE.COM", EMAIL),
        ("+41 79 123 45 67", PHONE),
        ("tel:+41791234567", PHONE),
        ("call +1-200-555-0147 now", PHONE),
        ("call 200.555.0147 now", PHONE),  # known, written without its country
        ("0041 44 123 45 67", PHONE),
        ("Ada Abel", NAME),
        ("owner ABEL, ADA (late)", NAME),
        ("ada_abel", NAME),
        ("zoe o'hara-müller came in", NAME),
        ("prisca", NAME),  # one word, as a whole value
        ("at Linden Lane 12, 8001 Exampleton", ADDRESS),
        ("Bahnhofstrasse 7", ADDRESS),
        ("7 Abbey Road", ADDRESS),
        ("chip 756098100123456 read", MICROCHIP),
        ("sha256('pepper-and-salt:' || x)", SALT),
    ],
)
def test_each_kind_is_found_in_the_forms_people_write_it(text, kind):
    assert kind in kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "Milo",  # a pet
        "Ada",  # a first name alone names nobody of a hundred
        "Abel & Partner",  # a clinic
        "Ada\nAbel",  # two lines
        "Ada wrote to Abel",
        "said Prisca",  # one word inside a text
        "Tierklinik Bahnhofstrasse",  # no house number
        "Altstadt",  # a district stands in an address's place
        "2026-06-01 00:00:00+00:00",
        "2026-06-01T23:59:59.000000+0200",
        "landing/telemetry/00000000000000000000+00000000000000012345.parquet",
        "756098100123457",  # another chip
        "petwellness@0.1.0",
        "3fa85f64-5717-4562-b3fc-2c963f66afa6",
        "short",  # a salt that could stand there by chance
        "day=2026-06-01/v1",
        "",
    ],
)
def test_what_only_looks_like_it_is_not_found(text):
    assert kinds(text) == []


def test_a_match_is_the_stretch_of_the_text_and_its_mask_tells_nothing():
    text = "owner: Ada Abel <ada.abel@example.org>"
    by_kind = {match.kind: text[match.start : match.end] for match in DETECTOR.find(text)}
    assert by_kind[EMAIL] == "ada.abel@example.org"
    assert masked(by_kind[EMAIL]) == "***.****@*******.***"
    assert masked("Zoë 12") == "*** **"


WORDS = st.text(alphabet="abcdefghijklmnopqrstuvwxyzäöüéß", min_size=2, max_size=9)
FILLER = st.text(alphabet=st.characters(codec="utf-8", categories=("L", "N", "P", "Z")), max_size=30)


@given(
    first=WORDS,
    last=WORDS,
    before=FILLER,
    after=FILLER,
    separator=st.sampled_from([" ", ", ", ".", "_"]),
    turned=st.booleans(),
)
def test_a_known_name_is_found_whatever_stands_around_it(first, last, before, after, separator, turned):
    detector = Detector(Known(names=(f"{first.title()} {last.title()}",)))
    planted = separator.join([last, first] if turned else [first, last])
    text = f"{before} {planted} {after}"
    assert NAME in kinds(text, detector)
    assert NAME in kinds(text.upper(), detector) or "ß" in planted


@given(st.text(alphabet="0123456789", min_size=9, max_size=12), FILLER)
def test_a_known_phone_number_is_found_with_and_without_separators(digits, before):
    detector = Detector(Known(phones=(f"+41 {digits}",)))
    assert PHONE in kinds(f"x {digits} y", detector)
    assert PHONE in kinds(f"{before}: {digits[:3]} {digits[3:]}", detector)


@given(st.text(alphabet="0123456789abcdef-", min_size=16, max_size=64), st.integers(0, 10**18))
def test_digests_and_offsets_are_never_personal(digest, number):
    assert kinds(digest) == []
    assert kinds(f"{number:020}") == []

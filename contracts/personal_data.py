"""What counts as personal data in a text: e-mail addresses, phone numbers, people's names, street addresses,
microchip ids and the salt of hashes.

Rules are coarse and say why. E-mail addresses, international phone numbers and
streets with a house number have a form of their own and are found by it, whoever
they belong to. Names, other phone numbers and microchip ids have none, so only
those that the warehouse itself knows are found: "Milo" may be a cat and
"Dr Vogel" a clinic, but the two words "Milo Vogel" are an owner. A single word
is a name only where it is the whole text and an owner goes by it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

EMAIL, PHONE, NAME, ADDRESS, MICROCHIP, SALT = (
    "e-mail address",
    "phone number",
    "person's name",
    "street address",
    "microchip id",
    "salt",
)
KINDS = (EMAIL, PHONE, NAME, ADDRESS, MICROCHIP, SALT)

_EMAIL = re.compile(r"[\w.%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
# With a plus: an offset of 20 digits and a time of day have none.
_INTERNATIONAL = re.compile(r"(?<![\w+.-])\+\d{1,3}(?:[ ./-]?\(?\d{2,4}\)?){2,4}(?![\w:])")
_PHONE_DIGITS = range(8, 16)
# A known number may be written without its country: the digits that tell.
_TELLING_DIGITS = 9
_DIGIT_RUN = re.compile(r"\d(?:[ ./()-]{0,2}\d){8,14}(?!\d)")
# With a house number: clinics are named after streets, and streets alone are nobody's address.
_GERMAN = "strasse|straße|str\\.|gasse|weg|platz|allee|rain"
_ENGLISH = "Street|Road|Lane|Avenue|Drive|Boulevard|Square"
_STREET = re.compile(
    rf"\b[A-ZÄÖÜ][\w'-]*(?:{_GERMAN})\s\d{{1,4}}[a-z]?\b"
    rf"|\b[A-Z][\w'-]+ (?:{_ENGLISH})\s\d{{1,4}}\b"
    rf"|\b\d{{1,4}} [A-Z][\w'-]+ (?:{_ENGLISH})\b"
)
# Ten times faster, and most texts have none.
_STREET_WORD = re.compile(f"{_GERMAN}|{_ENGLISH}")
_WORD = re.compile(r"[^\W_]+")
# Between the words of a name or an address: as in "Abel, Ada", "ada.abel" or "O'Hara".
_GAP = re.compile(r"[ \t,._:;/'\u2019-]{1,3}")
# A shorter salt could stand in a text by chance.
MIN_SALT_LENGTH = 8


@dataclass(frozen=True)
class Match:
    """A stretch of a text that is personal data."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Known:
    """Personal data by value: what the warehouse holds of people in its restricted tables, and the salts."""

    names: tuple[str, ...] = ()
    phones: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    microchips: tuple[str, ...] = ()
    salts: tuple[str, ...] = ()


@dataclass
class Detector:
    """Finds personal data in texts; made once for many of them."""

    known: Known
    # By first word: what follows, and the kind of the whole.
    _phrases: dict[str, list[tuple[tuple[str, ...], str]]] = field(default_factory=dict, init=False)
    single_names: frozenset[str] = field(default=frozenset(), init=False)
    _phones: frozenset[str] = field(default=frozenset(), init=False)
    _microchips: frozenset[str] = field(default=frozenset(), init=False)
    _first_words: frozenset[str] = field(default=frozenset(), init=False)
    salts: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        singles = set()
        for name in self.known.names:
            words = _words(name)
            if len(words) == 1:
                singles.add(words[0])
            else:
                self._add_phrase(words, NAME)
                self._add_phrase((*words[-1:], *words[:-1]), NAME)
        for address in self.known.addresses:
            words = _words(address)
            # A district alone is no address.
            if len(words) > 1 and any(word.isdigit() for word in words):
                self._add_phrase(words, ADDRESS)
        self.single_names = frozenset(singles)
        self._phones = frozenset(
            digits[-_TELLING_DIGITS:]
            for digits in map(_digits, self.known.phones)
            if len(digits) >= _TELLING_DIGITS
        )
        self._microchips = frozenset(chip.casefold() for chip in self.known.microchips if len(chip) >= 9)
        self._first_words = self._microchips | self._phrases.keys()
        self.salts = tuple(salt for salt in self.known.salts if len(salt) >= MIN_SALT_LENGTH)

    def _add_phrase(self, words: tuple[str, ...], kind: str) -> None:
        if words:
            entry = (words[1:], kind)
            entries = self._phrases.setdefault(words[0], [])
            if entry not in entries:
                entries.append(entry)

    def find(self, text: str) -> list[Match]:
        """Everything in `text` that is personal data; stretches of one kind do not overlap."""
        found: list[Match] = []
        for match in sorted(self._matches(text), key=lambda one: (one.kind, one.start, -one.end)):
            if not found or found[-1].kind != match.kind or match.start >= found[-1].end:
                found.append(match)
        return found

    def _matches(self, text: str) -> Iterator[Match]:
        yield from self._emails_and_streets(text)
        yield from self._phone_numbers(text)
        yield from self._known_words(text)
        yield from self._salts(text)

    def _emails_and_streets(self, text: str) -> Iterator[Match]:
        if "@" in text:
            yield from (Match(EMAIL, *found.span()) for found in _EMAIL.finditer(text))
        if _STREET_WORD.search(text):
            yield from (Match(ADDRESS, *found.span()) for found in _STREET.finditer(text))

    def _phone_numbers(self, text: str) -> Iterator[Match]:
        if "+" in text:
            for found in _INTERNATIONAL.finditer(text):
                if len(_digits(found[0])) in _PHONE_DIGITS:
                    yield Match(PHONE, *found.span())
        if self._phones:
            for found in _DIGIT_RUN.finditer(text):
                if _digits(found[0])[-_TELLING_DIGITS:] in self._phones:
                    yield Match(PHONE, *found.span())

    def _known_words(self, text: str) -> Iterator[Match]:
        if text.strip() and _normal(text.strip()) in self.single_names:
            yield Match(NAME, 0, len(text))
        # Half the time of looking at each word, and nearly always enough.
        if text.isascii() and self._first_words.isdisjoint(_WORD.findall(text.lower())):
            return
        for found in _WORD.finditer(text):
            word = _normal(found[0])
            if word in self._microchips:
                yield Match(MICROCHIP, *found.span())
            for rest, kind in self._phrases.get(word, ()):
                end = _end_of(text, found.end(), rest)
                if end is not None:
                    yield Match(kind, found.start(), end)

    def _salts(self, text: str) -> Iterator[Match]:
        for salt in self.salts:
            start = text.find(salt)
            while start >= 0:
                yield Match(SALT, start, start + len(salt))
                start = text.find(salt, start + len(salt))


def _end_of(text: str, position: int, words: tuple[str, ...]) -> int | None:
    """Where `words` end that follow in `text` from a position on, one gap before each; None when they do not."""
    for word in words:
        gap = _GAP.match(text, position)
        following = _WORD.match(text, gap.end()) if gap else None
        if following is None or _normal(following[0]) != word:
            return None
        position = following.end()
    return position


def masked(text: str) -> str:
    """The form of a value without the value: letters and digits as `*`."""
    return re.sub(r"[^\W_]", "*", text)


def _words(text: str) -> tuple[str, ...]:
    return tuple(_normal(word) for word in _WORD.findall(text))


def _normal(word: str) -> str:
    """Lower case, without accents."""
    if word.isascii():
        return word.lower()
    plain = unicodedata.normalize("NFKD", word.casefold())
    return "".join(char for char in plain if not unicodedata.combining(char))


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)

"""Which characters a name may hold, and how text of others is shown."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbexchange.identity import is_name
from nbexchange.text import cleaned, escaped, is_safe

ALL = [chr(code) for code in range(sys.maxunicode + 1)]
OF_LINES_AND_TERMINALS = [char for char in ALL if unicodedata.category(char) in ("Cc", "Zl", "Zp")]
OF_DIRECTION = [
    char
    for char in ALL
    if unicodedata.bidirectional(char)
    in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
]
DEPRECATED = [*map(chr, range(0x206A, 0x2070)), "\ufff9", "\ufffa", "\ufffb", "\U000e0001"]

NAMES = {
    "Irish": "Siobhán O’Neill",
    "Vietnamese": "Nguyễn Thị Minh Khai",
    "decomposed": unicodedata.normalize("NFD", "Zoë Müller"),
    "Arabic": "محمد بن سلمان",
    "Persian with a non-joiner": "علی\u200cرضا",
    "Hebrew with vowels": "דָּוִד בֶּן־גּוּרִיּוֹן",
    "Hebrew with marks of direction": "\u200fדוד\u200e (David)",
    "Arabic letter mark": "\u061c٣ أحمد",
    "Hindi with a joiner": "क्\u200dष",
    "Chinese": "王小明",
    "rare Chinese": "𠮷野家",
    "emoji": "👩\u200d🔬 Ada",
    "a flag made of tags": "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "soft hyphen": "Rüdes\u00adheim",
    "no-break space": "Anna\u00a0Lena",
    "byte order mark of a CSV file": "\ufeffbob",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_that_people_have_is_taken_and_shown_as_it_is(name):
    assert is_name(name)
    assert escaped(name) == cleaned(name) == name


def test_what_ends_a_line_obeys_a_terminal_or_reorders_text_is_in_no_name():
    assert len(OF_LINES_AND_TERMINALS) == 67
    assert len(OF_DIRECTION) == 9

    unsafe = [*OF_LINES_AND_TERMINALS, *OF_DIRECTION, *DEPRECATED, "\ud800", "\udfff"]

    assert [char for char in unsafe if is_safe(f"a{char}b")] == []
    assert [char for char in unsafe if not escaped(f"a{char}b").isascii()] == []


def test_every_letter_mark_number_and_sign_may_be_in_a_name():
    assert [
        char for char in ALL if unicodedata.category(char)[0] in "LMNPS" and not is_safe(char)
    ] == []


@given(st.text(), st.integers(min_value=1, max_value=20))
def test_shown_text_is_safe_short_and_the_same_when_it_was_both(text, longest):
    shown = escaped(text, longest)

    assert is_safe(shown)
    assert len(shown) <= longest
    if is_safe(text) and len(text) <= longest:
        assert shown == text
    elif len(text) > longest:
        assert shown.endswith("…")


@given(st.text())
def test_cleaned_text_is_safe_and_has_all_that_was_safe(text):
    kept = cleaned(text)

    assert is_safe(kept)
    assert visible(kept) == list(filter(is_safe, visible(text)))


def visible(text: str) -> list[str]:
    return [char for char in text if not char.isspace()]


def test_cleaned_text_keeps_its_words_apart():
    assert cleaned("\u202eAda\u2066\r\nLovelace\x85") == "Ada  Lovelace"

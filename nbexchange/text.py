"""Untrusted text: which characters a name may contain, and how text is escaped for display.

One set of unsafe characters decides both, so an accepted name is always safe to print. The set
contains characters that end a line or move the cursor of a terminal (control characters, line and
paragraph separators), characters that change the order or the shape of the following text
(bidirectional embeddings, overrides and isolates, deprecated format characters, annotations), and
lone surrogates.

It contains no character that people's names need: letters of all alphabets in both directions,
left-to-right and right-to-left marks, the joiners of Persian, Hindi and emoji, soft hyphens.
"""

import re
import unicodedata

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\U000e0001\ud800-\udfff]"
)


def is_safe(text: str) -> bool:
    """Whether the text contains no unsafe character, so that it may be a name."""
    return _UNSAFE.search(text) is None


def escaped(text: str, longest: int | None = None) -> str:
    """Escape text for a terminal, a log or a message: one line of at most `longest` characters."""
    line = _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text[:longest])
    if longest is None or max(len(line), len(text)) <= longest:
        return line
    return f"{line[: longest - 1]}…"


def cleaned(text: str) -> str:
    """Remove unsafe characters from text for display only, such as a full name or a title."""
    return _UNSAFE.sub(lambda match: _replacement(match[0]), text).strip()


def _replacement(character: str) -> str:
    return "" if unicodedata.category(character) in ("Cf", "Cs") else " "

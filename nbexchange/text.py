"""Text that others wrote: which characters a name may hold, and how text is shown.

One set of characters decides both, so a name that is accepted is always safe to print. It holds
what ends a line or moves the cursor of a terminal (control characters, line and paragraph
separators), what changes the order or the shape of the text that follows (bidirectional
embeddings, overrides and isolates, deprecated format characters, annotations), and lone surrogates.

Everything that people's names need is outside of it: letters of all alphabets in both directions,
left-to-right and right-to-left marks, the joiners of Persian, Hindi and emoji, soft hyphens.
"""

import re
import unicodedata

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\U000e0001\ud800-\udfff]"
)


def is_safe(text: str) -> bool:
    """Whether a name may be this."""
    return _UNSAFE.search(text) is None


def escaped(text: str, longest: int | None = None) -> str:
    """Text for a terminal, a log or a message: one line, at most `longest` characters."""
    line = _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text[:longest])
    if longest is None or max(len(line), len(text)) <= longest:
        return line
    return f"{line[: longest - 1]}…"


def cleaned(text: str) -> str:
    """Text that is only ever shown, such as a full name or a title, without unsafe characters."""
    return _UNSAFE.sub(lambda match: _replacement(match[0]), text).strip()


def _replacement(character: str) -> str:
    return "" if unicodedata.category(character) in ("Cf", "Cs") else " "

"""Words of messages: numbers with their nouns, and texts that are not trusted."""

import re

LONGEST_MESSAGE = 2000
"""Characters of a message that another process wrote, so that a status with several of them stays small."""
_NOT_FOR_TERMINALS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters (C0 without tab and newline, DEL, C1), overrides of the direction of text, lone surrogates."""


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 row", "1,234 rows", "2 micro-batches", "2 queries"."""
    if number != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{number:,} {noun}"


def shown(text: str) -> str:
    r"""The text with its control characters as escapes, such as `\x1b` and `\u202e`. As they are, they could change the
    title or the clipboard of a terminal, hide text or imitate other lines.
    """
    return _NOT_FOR_TERMINALS.sub(lambda found: _escaped(ord(found[0])), text)


def shown_json(text: str) -> str:
    r"""The same for JSON, where such a character can only be inside a string: `\u001b`."""
    return _NOT_FOR_TERMINALS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shortened(text: str, most: int = LONGEST_MESSAGE) -> str:
    """`shown`, cut to `most` characters; the last three of a cut text are dots."""
    clean = shown(text[: most + 1])
    return clean if len(clean) <= most and len(text) <= most else f"{clean[: most - 3]}..."


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

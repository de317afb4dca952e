"""Words of messages that depend on a number."""


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 row", "1,234 rows", "2 micro-batches", "2 queries"."""
    if number != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{number:,} {noun}"

"""Texts of other people, made fit to be stored: PostgreSQL takes no U+0000, UTF-8 no half of a surrogate pair."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def storable(text: str) -> str:
    """The text with a replacement character for each that cannot be stored."""
    return text.replace("\x00", REPLACEMENT).encode("utf-16", "surrogatepass").decode("utf-16", "replace")

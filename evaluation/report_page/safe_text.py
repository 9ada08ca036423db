"""Texts of agents, teams and services on a page: bounded, without control characters, and for teams without places.

HTML itself is escaped by the template (autoescape).
"""

import re
import unicodedata

from evaluation.text import REPLACEMENT, storable

LONGEST = 2000  # characters of a text, unless its place says otherwise
HIDDEN = "[not shown]"

# Control and format characters (U+202E turns a line around), surrogates, private use, lines of their own kinds.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_PLACES = re.compile(
    r"""
    \b[a-z][a-z0-9+.-]{1,20}://[^\s'"<>]+                                   # s3://bucket/key, addresses
    | \barn:[^\s'"<>]+
    | (?<![\w.:-])(?:/[\w.@+-]+){2,}/?                                       # absolute paths
    | \b(?:[a-z0-9-]+\.)+(?:amazonaws\.com(?:\.cn)?|internal|local|svc)\b(?:[:/][^\s'"<>]*)?
    | \b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b                               # IPv4 addresses
    | \b\d{12}\b                                                             # AWS accounts
    """,
    re.VERBOSE | re.IGNORECASE,
)


def shown(text: str, most: int = LONGEST) -> str:
    """The text as a page may hold it: at most so many characters, each of them visible, line ends and tabs kept."""
    kept = storable(text[:most].replace("\r\n", "\n"))
    visible = "".join(
        REPLACEMENT if unicodedata.category(character) in _INVISIBLE and character not in "\n\t" else character
        for character in kept
    )
    cut = len(text) - most
    return f"{visible} [{cut} more characters]" if cut > 0 else visible


def redacted(text: str, most: int = LONGEST) -> str:
    """The same without the places of an installation: addresses, paths, hosts, buckets, accounts."""
    return shown(_PLACES.sub(HIDDEN, text[: 2 * most]) + text[2 * most :], most)


def image_name(image: str) -> str:
    """The team's name of its image, without the registry, which names an account; a digest is shown elsewhere."""
    return image.rpartition("/")[2].partition("@")[0]

"""Makes a model's text fragments fit to store one by one.

A fragment may end in the middle of what can't be split: a surrogate pair (JSON escapes each half of an
emoji by itself), or CR LF (as server-sent events each half alone would become a line end of its own).
"""

from __future__ import annotations


class TextJoiner:
    """Holds back what can't stand alone until its other half arrives."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, fragment: str) -> str:
        """Take a fragment, give what can be stored now (perhaps nothing)."""
        text = self._held + fragment
        held = text[-1:] if _is_half(text[-1:]) else ""
        self._held = held
        return storable(text[:-1] if held else text)

    def flush(self) -> str:
        """Give what is still held back."""
        text, self._held = self._held, ""
        return storable(text)


def storable(text: str) -> str:
    """Join surrogate pairs; a lone surrogate, which no UTF-8 can carry, becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _is_half(character: str) -> bool:
    return character == "\r" or "\ud800" <= character <= "\udbff"

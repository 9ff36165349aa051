"""Text that is written once, whatever comes again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clients.chat.shown_text import ShownText

PIECES = st.lists(st.text("ab", max_size=4), max_size=6)


@given(st.lists(PIECES, min_size=1, max_size=4))
def test_the_last_telling_is_what_stands(tellings: list[list[str]]) -> None:
    """However often an answer starts again, what is written since it was last replaced is the answer."""
    shown, written = ShownText(), ""
    for place, pieces in enumerate(tellings):
        if place:
            shown.reset()
        for piece in pieces:
            told = shown.take(piece)
            written = told.text if told.replaces else written + told.text
    told = shown.end()
    written = told.text if told.replaces else written + told.text
    assert written == "".join(tellings[-1])


@given(PIECES, st.integers(0, 6), PIECES)
def test_the_same_again_replaces_nothing(before: list[str], again: int, rest: list[str]) -> None:
    """Where the same text comes again, in other pieces and with more after it, nothing is replaced."""
    shown = ShownText()
    text = "".join(before)
    written = "".join(shown.take(piece).text for piece in before)
    shown.reset()
    for piece in (text[:again], text[again:], *rest):
        told = shown.take(piece)
        assert not told.replaces
        written += told.text
    assert not shown.end().replaces
    assert written == text + "".join(rest)

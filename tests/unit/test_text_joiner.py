"""Fragments that can't stand alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streaming.text_joiner import TextJoiner, storable

#: Text that may hold lone surrogates, as JSON escapes can make it.
ANY_TEXT = st.text(st.characters() | st.characters(categories=["Cs"]))


def joined(fragments: list[str]) -> list[str]:
    joiner = TextJoiner()
    return [*(joiner.feed(fragment) for fragment in fragments), joiner.flush()]


@given(st.lists(ANY_TEXT))
def test_nothing_is_lost_however_it_is_cut(fragments: list[str]) -> None:
    """The pieces join to the text as a whole, and each can be stored."""
    pieces = joined(fragments)
    assert "".join(pieces) == storable("".join(fragments))
    "".join(pieces).encode("utf-8")


def test_halves_wait_for_each_other() -> None:
    """A high surrogate and a CR are held until the next fragment."""
    assert joined(["a\ud83d", "\ude42b\r", "\nc"]) == ["a", "🙂b", "\r\nc", ""]


def test_a_half_that_stays_alone_is_given_at_the_end() -> None:
    """What is held back comes out in the end, a lone surrogate as U+FFFD."""
    assert joined(["a\r"]) == ["a", "\r"]
    assert joined(["a\ud83d"]) == ["a", "\ufffd"]

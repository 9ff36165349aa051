"""Events of the Azure AI Agents service, taken apart."""

from __future__ import annotations

import pytest

from bridges.azure_ai_agents.events import EventFrames


@pytest.mark.parametrize("data", ["half {", "[" * 200_000])
def test_data_that_is_no_json_passes_as_it_is(data: str) -> None:
    """An event whose data nobody can parse, be it cut or absurdly nested, is given on as text."""
    frame = f"event: thread.message.delta\ndata: {data}\n\n".encode()
    assert EventFrames().feed(frame) == [("thread.message.delta", data, frame)]

"""The Responses API, through the ``openai`` package: its event streams, through the stream.

``AsyncResponseRecorder`` and ``ResponseRecorder`` write what ``client.responses.create(stream=True)`` gives,
and resume it where it runs in the background; ``AsyncResponseReader`` and ``ResponseReader`` give the same
events elsewhere.
"""

from bridges.openai_responses.readers import AsyncResponseReader, ResponseReader
from bridges.openai_responses.recorders import AsyncResponseRecorder, ResponseRecorder

__all__ = ["AsyncResponseReader", "AsyncResponseRecorder", "ResponseReader", "ResponseRecorder"]

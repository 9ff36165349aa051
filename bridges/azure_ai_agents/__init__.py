"""Azure AI Agents (the classic service, which retires on 31 March 2027): its runs, through the stream.

``AsyncRecordingAgentEventHandler`` and ``RecordingAgentEventHandler`` are event handlers for
``client.runs.stream(…)`` that write what they see; ``AsyncAgentRunReader`` and ``AgentRunReader`` give it to
event handlers elsewhere. Needs ``requirements-azure-ai-agents.txt``.
"""

from bridges.azure_ai_agents.handlers import AsyncRecordingAgentEventHandler, RecordingAgentEventHandler
from bridges.azure_ai_agents.readers import AgentRunReader, AsyncAgentRunReader

__all__ = [
    "AgentRunReader",
    "AsyncAgentRunReader",
    "AsyncRecordingAgentEventHandler",
    "RecordingAgentEventHandler",
]

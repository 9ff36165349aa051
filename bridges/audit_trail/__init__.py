"""Callback telemetry: what an agent's callback was told, kept by agent and thread: docs/telemetry.md."""

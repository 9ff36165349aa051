"""The load: clients that read, and what they and the writers have in common."""

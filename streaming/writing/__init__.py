"""On the way into the stream: the writer of an attempt, its lease, and the way to stop it."""

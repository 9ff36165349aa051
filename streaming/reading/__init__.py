"""Out of the stream: where a read starts, replay, live entries, and its end."""

"""What the standalone host brings along where nothing is set: a Redis server and a task hub."""

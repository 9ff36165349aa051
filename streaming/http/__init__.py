"""What the HTTP routes do, on every host."""

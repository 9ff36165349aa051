"""The terminal chat: ``python -m clients``. It knows the client, the terminal and nothing of HTTP."""

"""Other ways into and out of the stream: vendors' services and clients, each in a package of its own."""

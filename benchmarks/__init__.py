"""How fast, how much, at what cost: measured on real servers and sockets. ``python -m benchmarks --help``."""

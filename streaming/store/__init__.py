"""What is in Redis: the state of runs and stored entries, and every script that changes them."""

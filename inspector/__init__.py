"""Looks inside: lists, shows, follows, exports, checks and replays conversations, and a page of the same."""

"""Compiled code, and what runs in its place where it was not compiled."""

"""Scores of a network that nobody has trained."""

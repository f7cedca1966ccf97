"""Writes a trained network in forms that need no nasproxy, each checked against the network itself, with a card."""

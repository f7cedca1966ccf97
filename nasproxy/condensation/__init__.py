"""Synthetic training sets."""

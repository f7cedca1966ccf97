"""Executors, the study, and the course of a search."""

"""Rank statistics, a run read back, its figures and its report."""

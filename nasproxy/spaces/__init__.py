"""What a search space is, where it comes from, whether it keeps its contract, and its candidates."""

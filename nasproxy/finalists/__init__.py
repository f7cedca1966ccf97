"""What becomes of a run's finalists afterwards: exported, trained further, asked about images."""

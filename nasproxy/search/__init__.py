"""Search spaces, candidates, executors, the study, and the course of a search."""

"""Small training sets of real images."""

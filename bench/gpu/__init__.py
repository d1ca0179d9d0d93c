"""What batching is worth in front of a real card."""

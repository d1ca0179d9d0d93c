"""The fast path for plain calls: without Klein, and with the same bytes."""

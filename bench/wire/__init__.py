"""How fast abproxy is on one core: against no proxy, and what one would write."""

"""The same work is not done twice: equal inputs in flight, and remembered rows."""

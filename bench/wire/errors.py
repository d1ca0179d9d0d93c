"""What keeps a benchmark from being run; the message is for who runs it."""

__all__ = ["CannotMeasure"]


class CannotMeasure(Exception):
    """Something is missing, did not start, or answered wrongly."""

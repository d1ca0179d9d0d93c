"""What callers see when one of several inference servers fails, under load."""

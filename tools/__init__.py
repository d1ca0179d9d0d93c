"""What is made for abproxy outside of it; nothing here is installed."""

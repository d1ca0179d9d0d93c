"""The clients' door: what comes in over HTTP, and what goes out again."""

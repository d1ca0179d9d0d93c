"""The settings: declared by topic, found, and parsed."""

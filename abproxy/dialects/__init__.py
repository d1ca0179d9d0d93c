"""
Bytes to call, rows to bytes: what the routes of an embedding server mean.

Nothing in this room does I/O or knows Twisted.
"""

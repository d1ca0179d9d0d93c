"""
The routes of embedding servers: from bytes to calls, and from rows to bytes.

No module here does I/O or knows Twisted.
"""

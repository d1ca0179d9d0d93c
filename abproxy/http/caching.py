"""Whether a client accepts an answer that was given before (RFC 9111)."""

import re

from abproxy.http.messages import HeaderList

__all__ = ["read_cache_control"]

_NEW = re.compile(rb"no-cache|no-store|max-age=0+", re.IGNORECASE)
_UNKEPT = re.compile(rb"no-store", re.IGNORECASE)


def read_cache_control(headers: HeaderList) -> tuple[bool, bool]:
    """
    Return whether rows that are known will do, and whether new ones may be kept.

    `Pragma: no-cache` is the same as `Cache-Control: no-cache`, which clients of
    HTTP/1.0 do not have.
    """
    words = [
        word.strip()
        for name, value in headers
        if name.lower() in {b"cache-control", b"pragma"}
        for word in value.split(b",")
    ]
    if not words:
        return True, True
    known = not any(map(_NEW.fullmatch, words))
    return known, not any(map(_UNKEPT.fullmatch, words))

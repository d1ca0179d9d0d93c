"""
JSON that is much work, or that readers understand in different ways.

Each is a body of `/embed`.
"""

from collections.abc import Iterator, Sequence

from bench.attack.corpus import Case

__all__ = ["LARGE", "SMALL"]

MEGABYTE = 1 << 20


def _small() -> Iterator[tuple[str, bytes]]:
    values = (
        *(b"NaN", b"Infinity", b"-Infinity", b"nan", b"1e400", b"-1e400", b"1e-400"),
        *(
            b"01",
            b"1.",
            b".1",
            b"+1",
            b"0x1",
            b"1_0",
            b"-0",
            b"9" * 400,
            b"true",
            b"null",
        ),
        *(
            b"undefined",
            b"'a'",
            b"a",
            b"[]",
            b"{}",
            b'["a"',
            b'["a",]',
            b'[,"a"]',
            b'""',
        ),
        *(b'[["a"]]', b'["a",1]', b'[1,"a"]', b'["a",null]', b"[1,[2]]", b"[[1],2]"),
        *(b"[-1]", b"[1.5]", b"[4294967296]", b"[9007199254740993]", b"[[]]", b'[""]'),
        *(
            b'"\\ud800"',
            b'"\\udc00\\ud800"',
            b'"\\ud83d\\ude00"',
            b'"\\u0000"',
            b'"\x00"',
        ),
        *(b'"\n"', b'"\t"', b'"\\x41"', b'"\\u00g0"', b'"\\', b'"\xff"', b'"\xc0\x80"'),
        *(
            b'"\xed\xa0\x80"',
            b'"\xf8\x88\x80\x80\x80"',
            b'"\xc3"',
            b'"\x7f"',
            b'"\xef\xbf\xbf"',
        ),
        *(b'"\\u0022],[\\u0022"', b'["a]","[b"]', b'["a\\"],[\\"b"]', b'["a"]//c'),
    )
    for value in values:
        yield f"inputs {value[:24]!r}", b'{"inputs":%b}' % value
    members = (
        *(b'"inputs":"b"', b'"input":"b"', b'"Inputs":"b"', b'"inputs\\u0000":"b"'),
        *(
            b'"inp\\u0075ts":"b"',
            b'"":0',
            b'"a":1,"a":2',
            b'"truncate":1',
            b'"truncate":[]',
        ),
        *(
            b'"normalize":"yes"',
            b'"normalize":true,"normalize":false',
            b'"parameters":{}',
        ),
        *(
            b'"dimensions":-1',
            b'"dimensions":1e2',
            b'"a":{"a":{"a":{}}}',
            b'"__proto__":{}',
        ),
        *(b'"truncate":nul', b'"a":NaN', b'"\xff":1', b'"a":"\xff"', b'"inputs":["c"]'),
    )
    for member in members:
        yield f"member {member[:24]!r} behind", b'{"inputs":["a"],%b}' % member
        yield f"member {member[:24]!r} before", b'{%b,"inputs":["a"]}' % member
    wholes = {
        "nothing": b"",
        "blanks": b" \n\t ",
        "no object": b'["a"]',
        "a number": b"1",
        "null": b"null",
        "a byte order mark": b'\xef\xbb\xbf{"inputs":["a"]}',
        "UTF-16": '{"inputs":["a"]}'.encode("utf-16"),
        "two objects": b'{"inputs":["a"]}{"inputs":["b"]}',
        "text behind": b'{"inputs":["a"]}x',
        "zeros behind": b'{"inputs":["a"]}\x00\x00',
        "a comment": b'/* */{"inputs":["a"]}',
        "no end": b'{"inputs":["a"]',
        "form feeds": b'\x0c{"inputs":["a"]}',
    }
    yield from wholes.items()


def _large() -> Iterator[tuple[str, bytes]]:
    """Bodies of megabytes."""
    some = 4 * MEGABYTE
    wholes = {
        "[ 4 million times": b'{"inputs":' + b"[" * some,
        "[ ] 1 million deep": b'{"inputs":' + b"[" * MEGABYTE + b"]" * MEGABYTE + b"}",
        "objects 500,000 deep": b'{"inputs":"a","b":' + b'{"a":' * 500_000,
        "a number of 4 million digits": b'{"inputs":[%b]}' % (b"9" * some),
        "a float of 4 million digits": b'{"inputs":[1.%b]}' % (b"9" * some),
        "an exponent of 4 million digits": b'{"inputs":[1e%b]}' % (b"9" * some),
        "a text of 4 MB": b'{"inputs":["%b"]}' % (b"a" * some),
        "a text of 700,000 escapes": b'{"inputs":["%b"]}' % (b"\\u0041" * 700_000),
        "a text of 2 million quotes": b'{"inputs":["%b"]}' % (b'\\"' * (some // 2)),
        "a text of 700,000 lone surrogates": b'{"inputs":["%b"]}'
        % (b"\\ud800" * 700_000),
        "a text without an end": b'{"inputs":["%b' % (b"a" * some),
        "a text of 4 MB with a bad last byte": b'{"inputs":["%b\xff"]}' % (b"a" * some),
        "4 MB of blanks": b'{"inputs":%b"a"}' % (b" " * some),
        "1 million lists of an id": b'{"inputs":[%b[1]]}' % (b"[1]," * MEGABYTE),
        "2 million ids": b'{"inputs":[%b1]}' % (b"1," * (2 * MEGABYTE)),
        "1 million texts": b'{"inputs":[%b"a"]}' % (b'"a",' * MEGABYTE),
        "1 million empty texts": b'{"inputs":[%b""]}' % (b'"",' * MEGABYTE),
        "2 million ids, then a text": b'{"inputs":[%b"a"]}' % (b"1," * (2 * MEGABYTE)),
        "300,000 members": b'{"inputs":["a"]%b}'
        % b"".join(b',"k%d":0' % at for at in range(300_000)),
        "800,000 members without a name": b'{"inputs":["a"]%b}' % (b',"":0' * 800_000),
        "400,000 times inputs": b'{"inputs":["a"]%b}' % (b',"inputs":0' * 400_000),
        "a name of 4 MB": b'{"inputs":["a"],"%b":0}' % (b"k" * some),
        "a member with 2 million numbers": b'{"inputs":["a"],"k":[%b0]}'
        % (b"0," * (2 * MEGABYTE)),
    }
    yield from wholes.items()


SMALL: Sequence[Case] = [Case(name, body) for name, body in _small()]
LARGE: Sequence[Case] = [Case(name, body) for name, body in _large()]

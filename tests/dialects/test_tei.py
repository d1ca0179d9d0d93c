"""What is plainly understood, and what is left to the upstream."""

import pytest

from abproxy.dialects.call import Dialect
from abproxy.dialects.openai import OPENAI
from abproxy.dialects.tei import (
    DECODE,
    EMBED,
    EMBED_ALL,
    EMBED_SPARSE,
    PREDICT,
    TOKENIZE,
)

DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("dialect", "body", "spelled", "lengths"),
    [
        (EMBED, b'{"inputs":"a"}', [b'"a"'], [1]),
        (EMBED, b'{"inputs":["a"]}', [b'"a"'], [1]),
        (EMBED, b'{"inputs":["a","bc"]}', [b'"a"', b'"bc"'], [1, 2]),
        (EMBED, b'{"inputs":[7,8,9]}', [b"[7,8,9]"], [3]),
        (EMBED, b'{"inputs":[[7],[8,9]]}', [b"[7]", b"[8,9]"], [1, 2]),
        (EMBED, b'{"inputs":["a",[8,9]]}', [b'"a"', b"[8,9]"], [1, 2]),
        (EMBED, b'{"inputs":[4294967295]}', [b"[4294967295]"], [1]),
        (EMBED, b' {\n"inputs" :\t[ "a" , "b" ] } \r\n', [b'"a"', b'"b"'], [1, 1]),
        (EMBED, b'{"x":{"a":1,"a":2},"inputs":"a"}', [b'"a"'], [1]),
        (EMBED, '{"inputs":"é😀"}'.encode(), ['"é😀"'.encode()], [2]),
        (EMBED, b'{"inputs":"\\ud83d\\ude00\\n"}', [b'"\\ud83d\\ude00\\n"'], [2]),
        (EMBED_ALL, b'{"inputs":"a"}', [b'"a"'], [1]),
        (EMBED_SPARSE, b'{"inputs":["a",[1]]}', [b'"a"', b"[1]"], [1, 1]),
        (PREDICT, b'{"inputs":[["ab"],["c","d"]]}', [b'["ab"]', b'["c","d"]'], [2, 2]),
        (TOKENIZE, b'{"inputs":"ab"}', [b'"ab"'], [2]),
        (TOKENIZE, b'{"inputs":["a","b"]}', [b'"a"', b'"b"'], [1, 1]),
        (DECODE, b'{"ids":[1,2]}', [b"[1,2]"], [2]),
        (DECODE, b'{"ids":[[1],[2,3]]}', [b"[1]", b"[2,3]"], [1, 2]),
        (OPENAI, b'{"input":"a"}', [b'"a"'], [1]),
        (OPENAI, b'{"input":["a","b"],"model":null}', [b'"a"', b'"b"'], [1, 1]),
        (OPENAI, b'{"input":[1,2],"user":"u"}', [b"[1,2]"], [2]),
    ],
)
def test_items_are_found_as_they_are_spelled(
    dialect: Dialect, body: bytes, spelled: list[bytes], lengths: list[int]
) -> None:
    """An item is the client's own bytes, with its length as TEI counts it."""
    parsed = dialect.read(body)

    assert parsed is not None
    assert list(parsed.items.raw) == spelled
    assert list(parsed.items.lengths) == lengths
    assert parsed.items.is_list


@pytest.mark.parametrize(
    ("body", "spelled", "length"),
    [
        (b'{"inputs":"ab"}', b'["ab"]', 2),
        (b'{"inputs":["ab"]}', b'["ab"]', 2),
        (b'{"inputs":["ab","c"]}', b'["ab","c"]', 3),
    ],
)
def test_one_sequence_to_predict_is_answered_by_one_bare_row(
    body: bytes, spelled: bytes, length: int
) -> None:
    """`["a","b"]` is one pair to TEI, and its answer is no list of rows."""
    parsed = PREDICT.read(body)

    assert parsed is not None
    assert parsed.items.raw == [spelled]
    assert parsed.items.lengths == [length]
    assert not parsed.items.is_list


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b'"inputs"',
        b"{",
        b"{}",
        b'["a"]',
        b'["a",null,null]',
        b'{"inputs":null}',
        b'{"inputs":1}',
        b'{"inputs":[]}',
        b'{"inputs":""}',
        b'{"inputs":["a",""]}',
        b'{"inputs":["a",[]]}',
        b'{"inputs":["a",1]}',
        b'{"inputs":[1,[2]]}',
        b'{"inputs":[[[1]]]}',
        b'{"inputs":[["a"]]}',
        b'{"inputs":[-1]}',
        b'{"inputs":[1.0]}',
        b'{"inputs":[4294967296]}',
        b'{"inputs":[1e99]}',
        b'{"inputs":["a",null]}',
        b'{"inputs":["a",true]}',
        b'{"inputs":[true]}',
        b'{"Inputs":"a"}',
    ],
)
def test_inputs_that_tei_might_refuse_are_not_understood(body: bytes) -> None:
    """The upstream says what it thinks of them, to their sender alone."""
    assert EMBED.read(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":"a"} x',
        b'{"inputs":"a"}{}',
        b'{"inputs":"a"}\x00',
        b'{"inputs":"a",}',
        b'{"inputs":"a"',
        b"{'inputs':'a'}",
        b'{inputs:"a"}',
        b'{"inputs":"a"/**/}',
        b'{"inputs":"a","x":NaN}',
        b'{"inputs":"a","x":01}',
        b'{"inputs":"a","x":"\\q"}',
        b'{"inputs":"a","x":"\n"}',
        b'{"inputs":"a\nb"}',
        b'{"inputs":"\x00"}',
        b'\xef\xbb\xbf{"inputs":"a"}',
        b'\x0c{"inputs":"a"}',
        '{"inputs":"a"}'.encode("utf-16"),
        b'{"inputs":"a\xff"}',
        b'{"inputs":"\xed\xa0\x80"}',
        b'{"inputs":"\xc0\x80"}',
        b'{"inputs":"\\ud800"}',
        b'{"inputs":"\\udc00\\ud800"}',
        b'{"\xff":1,"inputs":"a"}',
        b'{"inputs":"a","x":' + DEEP + b"}",
        b'{"inputs":' + DEEP + b"}",
    ],
)
def test_what_is_no_plain_json_is_not_understood(body: bytes) -> None:
    """Parsers differ in what they forgive."""
    assert EMBED.read(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":"a","inputs":"a"}',
        b'{"inputs":"a","x":1,"x":1}',
        b'{"inputs":"a","x":12,"x":1,"y":2}',
        b'{"inputs":"a","x":1,"x":12}',
        b'{"inputs":"a","x":1,"y":2,"x":1}',
        b'{"inputs":"a","truncate":true,"truncate":true}',
        b'{"in\\u0070uts":"a"}',
        b'{"inputs":"a","\\u0069nputs":"b"}',
        b'{"inputs":"a","x\\"y":1}',
        b'{"inputs":"a","x\\\\":1}',
    ],
)
def test_a_name_twice_or_with_escapes_is_not_understood(body: bytes) -> None:
    """TEI refuses the first; what others take the second for is their secret."""
    assert EMBED.read(body) is None


@pytest.mark.parametrize(
    ("dialect", "member"),
    [
        (EMBED, b'"normalize":null'),
        (EMBED, b'"normalize":1'),
        (EMBED, b'"normalize":"true"'),
        (EMBED, b'"truncate":"yes"'),
        (EMBED, b'"truncation_direction":"RIGHT"'),
        (EMBED, b'"truncation_direction":null'),
        (EMBED, b'"prompt_name":1'),
        (EMBED, b'"dimensions":-1'),
        (EMBED, b'"dimensions":384.0'),
        (EMBED, b'"dimensions":1e2'),
        (EMBED, b'"dimensions":9223372036854775808'),
        (EMBED, b'"dimensions":99999999999999999999999999'),
        (PREDICT, b'"raw_scores":null'),
        (TOKENIZE, b'"add_special_tokens":null'),
        (OPENAI, b'"encoding_format":null'),
        (OPENAI, b'"encoding_format":"hex"'),
        (OPENAI, b'"model":["m"]'),
    ],
)
def test_an_option_of_another_type_is_not_understood(
    dialect: Dialect, member: bytes
) -> None:
    """What TEI would refuse is refused by TEI, in its own words."""
    name = b"input" if dialect is OPENAI else b"inputs"

    assert dialect.read(b'{"%b":"a",%b}' % (name, member)) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[]}',
        b'{"inputs":[[]]}',
        b'{"inputs":[["a","b","c"]]}',
        b'{"inputs":["a","b","c"]}',
        b'{"inputs":["a",["b"]]}',
        b'{"inputs":[["a"],"b"]}',
        b'{"inputs":[["a"],[]]}',
        b'{"inputs":[["a",""]]}',
        b'{"inputs":[1,2]}',
    ],
)
def test_odd_shapes_for_predict_are_not_understood(body: bytes) -> None:
    """One text, one pair or a list of such, and nothing in between."""
    assert PREDICT.read(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"ids":[]}',
        b'{"ids":[[]]}',
        b'{"ids":[1,[2]]}',
        b'{"ids":5}',
        b'{"ids":["a"]}',
        b'{"ids":[1],"skip_special_tokens":null}',
    ],
)
def test_odd_shapes_for_decode_are_not_understood(body: bytes) -> None:
    """Ids are one list, or a list of lists."""
    assert DECODE.read(body) is None


def test_token_ids_are_nothing_to_tokenize() -> None:
    """TEI wants text there."""
    assert TOKENIZE.read(b'{"inputs":[1,2]}') is None

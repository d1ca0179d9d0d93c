"""A wrong body is refused in serde's words."""

import pytest

from abproxy_model.requests import Embed, OpenAI, Similarity
from abproxy_model.schema import BadBody

SYNTAX = "Failed to parse the request body as JSON: "
DATA = "Failed to deserialize the JSON body into the target type: "


def refused(body: bytes) -> tuple[int, str]:
    """Read a body that is wrong."""
    with pytest.raises(BadBody) as caught:
        Embed.read(body)
    return caught.value.status, str(caught.value)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"inputs":"a"', "EOF while parsing an object at line 1 column 13"),
        (b'{"inputs" "a"}', "expected `:` at line 1 column 11"),
        (b'{"inputs":"a",}', "trailing comma at line 1 column 15"),
        (b'{"inputs":"a" "b"}', "expected `,` or `}` at line 1 column 15"),
        (b"{1:2}", "key must be a string at line 1 column 2"),
        (b'{"inputs":["a","b",]}', "inputs: trailing comma at line 1 column 20"),
        (b'{"inputs":["a" "b"]}', "inputs: expected `,` or `]` at line 1 column 16"),
        (b'{"inputs":[01]}', "inputs[0]: invalid number at line 1 column 13"),
        (b'{"inputs":[1.]}', "inputs[0]: invalid number at line 1 column 14"),
        (b'{"inputs":[1e]}', "inputs[0]: invalid number at line 1 column 14"),
        (b'{"inputs":[-]}', "inputs[0]: invalid number at line 1 column 13"),
        (b'{"inputs":[1e999]}', "inputs[0]: number out of range at line 1 column 16"),
        (b'{"inputs":"a\\x"}', "inputs: invalid escape at line 1 column 14"),
        (b'{"inputs":"a\\u12"}', "inputs: invalid escape at line 1 column 18"),
        (b'{"inputs":"a\\', "inputs: EOF while parsing a string at line 1 column 13"),
        (b'{"inputs":nul}', "inputs: expected ident at line 1 column 14"),
        (b'{"inputs":NaN}', "inputs: expected value at line 1 column 11"),
        (b'\n{"inputs":\n  x}', "inputs: expected value at line 3 column 3"),
        (
            b'{"inputs":' + b"[" * 200,
            "inputs" + "[0]" * 126 + ": recursion limit exceeded at line 1 column 137",
        ),
    ],
)
def test_a_text_that_is_no_json_is_a_400(body: bytes, problem: str) -> None:
    """The wrong byte is named by its place."""
    assert refused(body) == (400, SYNTAX + problem)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            b'{"inputs":"a","truncate":"yes"}',
            (
                'truncate: invalid type: string "yes", expected a boolean'
                " at line 1 column 30"
            ),
        ),
        (
            b'{"inputs":"a","normalize":[]}',
            "normalize: invalid type: sequence, expected a boolean at line 1 column 26",
        ),
        (
            b'{"inputs":"a","dimensions":1.5}',
            (
                "dimensions: invalid type: floating point `1.5`, expected usize"
                " at line 1 column 30"
            ),
        ),
        (
            b'{"inputs": null , "normalize": true}',
            (
                "inputs: data did not match any variant of untagged enum Input"
                " at line 1 column 16"
            ),
        ),
        (
            b"7",
            (
                "invalid type: integer `7`, expected struct EmbedRequest"
                " at line 1 column 1"
            ),
        ),
    ],
)
def test_json_of_the_wrong_shape_is_a_422(body: bytes, problem: str) -> None:
    """The wrong value is named by its path."""
    assert refused(body) == (422, DATA + problem)


def test_a_request_may_be_a_list_of_all_its_values() -> None:
    """Serde reads a struct from a list, in the order of its fields."""
    call = Embed.read(b'["a", true, "Left", null, false, 3]')

    assert (call.inputs, call.truncate, call.dimensions) == ("a", True, 3)


def test_what_follows_the_value_is_ignored() -> None:
    """Text after the JSON value is not looked at."""
    assert Embed.read(b'{"inputs":"a"} and so on').inputs == "a"


def test_escapes_are_read() -> None:
    """A string may be written with escapes."""
    assert Embed.read(b'{"inputs":"\\ud83d\\ude00\\n"}').inputs == "😀\n"


def test_a_lone_surrogate_is_no_text() -> None:
    """Half a character is refused."""
    assert refused(b'{"inputs":"\\ude00"}')[0] == 400


def test_unknown_fields_are_ignored() -> None:
    """An unknown field changes nothing, whatever it holds."""
    assert OpenAI.read(b'{"input":"a","x":{"y":[1,null,{}]}}').input == "a"


def test_optional_parameters_may_be_left_out() -> None:
    """A similarity has default parameters."""
    body = b'{"inputs":{"source_sentence":"a","sentences":["b"]},"parameters":null}'

    assert Similarity.read(body).truncation_direction == "Right"

"""What servers, gateways and firewalls are like, by name: traits and refusals."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from bench.breakable.refusals import Refusal

__all__ = ["MOODS", "Mood"]


@frozen
class Mood:
    """Traits that change, and what is refused from then on."""

    traits: Mapping[str, Any]
    refusals: tuple[Refusal, ...] = ()


_TOO_LONG = (
    '{"error":{"code":500,"message":"input is too large to process. increase the '
    'physical batch size","type":"server_error"}}'
)
_NO_NORM = '{"error":{"code":500,"message":"no norm","type":"server_error"}}'
_TOO_MANY = (
    '{"error":{"message":"Value error, batch size is invalid, it should not be larger '
    'than 10.","type":"invalid_request_error","param":null,"code":"invalid"}}'
)
_NO_LIST = (
    '{"error":{"message":"input must be a string","type":"invalid_request_error"}}'
)
_QUOTA = (
    '{"error":{"message":"Request too large on tokens per min (TPM)","type":"tokens",'
    '"code":"rate_limit_exceeded"}}'
)
_OPENAI = {"openai": True, "max_batch": 2048}

MOODS: Mapping[str, Mood] = {
    "llama.cpp": Mood(
        _OPENAI,
        (
            Refusal(longer=512, status=500, body=_TOO_LONG),
            Refusal(text="NO-NORM", status=500, body=_NO_NORM),
        ),
    ),
    "firewall": Mood({}, (Refusal(text="DROP TABLE", status=403),)),
    "gateway": Mood({"gateway": 502, "restart_s": 2.0}),
    "slow-gateway": Mood({"gateway": 504, "gateway_ms": 1500.0, "restart_s": 2.0}),
    "slow": Mood({**_OPENAI, "ms_per_input": 300.0}),
    "hasty-gateway": Mood({}, (Refusal(inputs=4, status=504),)),
    "ten-inputs": Mood(_OPENAI, (Refusal(inputs=10, status=400, body=_TOO_MANY),)),
    "one-input": Mood(_OPENAI, (Refusal(inputs=1, status=400, body=_NO_LIST),)),
    "quota": Mood(_OPENAI, (Refusal(characters=200, status=429, body=_QUOTA),)),
    "no-index": Mood({**_OPENAI, "shape": "no-index"}),
    "null-index": Mood({**_OPENAI, "shape": "null-index"}),
    "no-zero-index": Mood({**_OPENAI, "shape": "no-zero-index"}),
    "bare": Mood({**_OPENAI, "shape": "bare"}),
    "embeddings": Mood({**_OPENAI, "shape": "embeddings"}),
    "nan": Mood({"nan_text": "NAN"}),
    "bills": Mood({**_OPENAI, "detailed_usage": True}),
    "picky": Mood(
        _OPENAI,
        (
            Refusal(without="User-Agent", status=403),
            Refusal(without="Accept", status=406),
        ),
    ),
    "identity": Mood({}, (Refusal(without="X-Forwarded-User", status=401),)),
    "uvicorn": Mood({**_OPENAI, "keep_alive_ms": 5000.0}),
    "broken": Mood({}, (Refusal(status=500),)),
}

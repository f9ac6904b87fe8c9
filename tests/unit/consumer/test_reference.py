"""The page of all settings is the one that the settings make."""

from pathlib import Path

from forebay_consumer.reference import settings_page


def test_the_configuration_page_is_made_from_the_settings() -> None:
    page = Path(__file__).parents[3] / "docs" / "configuration.md"
    assert page.read_text() == settings_page(), "run: forebay-consumer config reference > docs/configuration.md"


def test_every_setting_says_what_it_means() -> None:
    assert "| None |" not in settings_page()

"""docs/settings.md says what the settings classes say."""

from __future__ import annotations

from pathlib import Path

from visum.settings_page import page, settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
FIXED_NAMES = {
    "VISUM_HOST", "VISUM_PORT", "VISUM_DATA_DIR", "VISUM_REDIS_URL", "VISUM_BACKBONE", "VISUM_MODEL_STORE",
    "VISUM_MAX_UPLOAD_BYTES", "VISUM_MAX_QUEUE", "VISUM_WORKERS",
}  # fmt: skip


def test_the_page_is_what_the_classes_say() -> None:
    assert PAGE.read_text() == page(), "run: python -m visum.settings_page > docs/settings.md"


def test_every_setting_is_described() -> None:
    assert [setting.name for setting in settings() if not setting.description] == []


def test_the_names_that_deployments_rely_on_are_there() -> None:
    assert {setting.name for setting in settings()} >= FIXED_NAMES


def test_every_variable_belongs_to_the_product() -> None:
    assert all(setting.name.startswith("VISUM_") for setting in settings())

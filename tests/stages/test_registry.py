"""The registry of stages: ten, in order, each setting with its form."""

import pytest

from aforo.sdk.component import configure
from aforo.sdk.errors import Invalid
from aforo.stages.registry import (
    AS_DELIVERED,
    DEFAULTS,
    STAGES,
    InForce,
    StageName,
    ValidationSettings,
    forms,
    written,
)


def test_there_are_ten_stages_in_the_order_of_the_path() -> None:
    assert list(STAGES) == list(StageName)
    assert len(STAGES) == 10


def test_every_setting_has_a_description_and_a_default_within_its_bounds() -> None:
    found = [form for stage in STAGES.values() for form in forms(stage.settings)]
    assert len(found) == 9
    for form in found:
        assert form.description.endswith(".")
        if form.type == "INTEGER":
            assert form.minimum is not None
            assert form.maximum is not None
            assert form.minimum <= form.default <= form.maximum
        if form.type == "TEXT":
            assert form.default in form.values


@pytest.mark.parametrize("name", StageName)
def test_the_settings_of_a_stage_come_back_as_they_are_written(name: StageName) -> None:
    assert configure(STAGES[name].settings, written(DEFAULTS[name])) == DEFAULTS[name]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"futureSecondsMax": 301}, "settings.futureSecondsMax"),
        ({"futureSecondsMax": -1}, "settings.futureSecondsMax"),
        ({"ageSecondsMax": 59}, "settings.ageSecondsMax"),
        ({"ageSecondsMax": 90 * 86_400 + 1}, "settings.ageSecondsMax"),
        ({"ageSecondsMax": "60"}, "settings.ageSecondsMax"),
        ({"ageSecondsMax": True}, "settings.ageSecondsMax"),
        ({"releaseAutomatically": "yes"}, "settings.releaseAutomatically"),
        ({"releaseAutomatically": 1}, "settings.releaseAutomatically"),
        ({"releaseAutomatically": None}, "settings.releaseAutomatically"),
    ],
)
def test_a_value_beyond_the_rules_is_named(given: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        configure(ValidationSettings, given)
    assert caught.value.field == field


def test_what_was_never_set_is_version_0_as_delivered() -> None:
    assert AS_DELIVERED.version(StageName.RATING) == 0
    assert AS_DELIVERED.validation == ValidationSettings()
    chosen = ValidationSettings(future_seconds_max=0)
    found = InForce({StageName.VALIDATION: 3}, {StageName.VALIDATION: chosen})
    assert found.version(StageName.VALIDATION) == 3
    assert found.validation.future_seconds_max == 0
    assert found.settlement.grace_seconds == 3_600

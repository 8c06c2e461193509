"""What the command shows of plugins and findings."""

from aforo.doctor import Finding
from aforo.plugins import load_registry
from aforo.sdk.kinds import KINDS
from aforo.terminal import described, finding_lines, plugin_lines


def test_every_component_is_listed_under_its_distribution_with_its_settings() -> None:
    registry = load_registry()
    text = "\n".join(plugin_lines(registry))
    assert text.startswith("aforo-standard 0.1.0\n")
    for component in registry.sources:
        assert f" {component.key}: {component.summary}" in text
        for name, field in component.model_fields.items():
            assert f"      {field.alias or name} " in text


def test_settings_within_settings_are_listed_below_them() -> None:
    lines = list(plugin_lines(load_registry()))
    at = next(index for index, line in enumerate(lines) if " GRADUATED: " in line)
    assert [line.split()[0] for line in lines[at + 1 : at + 6]] == [
        "tiers",
        "upTo",
        "unitPrice",
        "flatFee",
        "chargeFlatFeeOnZeroUsage",
    ]
    assert "list of Tier, required." in lines[at + 1]
    assert "decimal as text or null, else null." in lines[at + 2]
    assert "true or false, else false." in lines[at + 5]


def test_a_description_for_machines_has_the_form_of_the_settings() -> None:
    listed = described(load_registry())
    graduated = next(each for each in listed if each["key"] == "GRADUATED")
    assert graduated["kind"] == "pricing model"
    assert graduated["distribution"] == "aforo-standard"
    assert graduated["settingsForm"]["properties"]["tiers"]["type"] == "array"
    assert {each["kind"] for each in listed} == {kind.title for kind in KINDS.values()}


def test_a_fault_says_below_what_to_do() -> None:
    findings = [
        Finding("redis", ok=True, says="version 6"),
        Finding("disk", ok=False, says="full", advice="make room"),
    ]
    assert list(finding_lines(findings)) == [
        "ok     redis  version 6",
        "FAULT  disk   full",
        "              → make room",
    ]

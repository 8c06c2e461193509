"""The ten stages in their order, and the settings of each: types, bounds and defaults. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from pydantic import Field

from aforo.sdk.component import Settings

T = TypeVar("T", bound=Settings)

DAY_SECONDS = 86_400
FUTURE_SECONDS_MAX = 300
AGE_SECONDS_MAX = 90 * DAY_SECONDS
SUSPECTED_SECONDS_DEFAULT = 5
SUSPECTED_SECONDS_MAX = 3_600
GRACE_SECONDS_DEFAULT = 3_600
GRACE_SECONDS_MAX = 30 * DAY_SECONDS
TAX_RETRY_SECONDS_DEFAULT = 300


class StageName(StrEnum):
    """The stages that an event passes, in their order."""

    INGESTION = "INGESTION"
    VALIDATION = "VALIDATION"
    DEDUPLICATION = "DEDUPLICATION"
    ENRICHMENT = "ENRICHMENT"
    QUOTA_CHECK = "QUOTA_CHECK"
    AGGREGATION = "AGGREGATION"
    RATING = "RATING"
    DISCOUNTING = "DISCOUNTING"
    TAXATION = "TAXATION"
    SETTLEMENT = "SETTLEMENT"


class NoSettings(Settings):
    """Those of a stage about which there is nothing to choose."""


class IngestionSettings(Settings):
    requires_occurred_at: bool = Field(
        default=False,
        strict=True,
        description="Whether an event without occurredAt is rejected (MISSING_FIELD); else the "
        "time of its first receipt is taken.",
    )


class ValidationSettings(Settings):
    future_seconds_max: int = Field(
        default=FUTURE_SECONDS_MAX,
        strict=True,
        ge=0,
        le=FUTURE_SECONDS_MAX,
        description="How far ahead of the server's clock an event may lie; the bound is inside.",
    )
    age_seconds_max: int = Field(
        default=AGE_SECONDS_MAX,
        strict=True,
        ge=60,
        le=AGE_SECONDS_MAX,
        description="How long ago an event may have happened; the bound is inside.",
    )
    release_automatically: bool = Field(
        default=False,
        strict=True,
        description="Whether quarantined events are released as soon as what was missing is made: "
        "their meter, customer, alias, key or subscription.",
    )


class DeduplicationSettings(Settings):
    suspects_duplicates: bool = Field(
        default=True,
        strict=True,
        description="Whether drafts show events that look like copies of others under another key.",
    )
    suspected_within_seconds: int = Field(
        default=SUSPECTED_SECONDS_DEFAULT,
        strict=True,
        ge=1,
        le=SUSPECTED_SECONDS_MAX,
        description="How far apart such events are at most.",
    )


class QuotaCheckSettings(Settings):
    default_policy: Literal["OVERAGE", "BLOCK"] = Field(
        default="OVERAGE",
        description="The policy of a quota that is created without one.",
    )


class TaxationSettings(Settings):
    retry_seconds: int = Field(
        default=TAX_RETRY_SECONDS_DEFAULT,
        strict=True,
        ge=60,
        le=DAY_SECONDS,
        description="After how long a tax engine that was down is asked again.",
    )


class SettlementSettings(Settings):
    grace_seconds: int = Field(
        default=GRACE_SECONDS_DEFAULT,
        strict=True,
        ge=0,
        le=GRACE_SECONDS_MAX,
        description="How long invoices stay drafts after their period ended, of subscriptions that "
        "are created without a grace of their own.",
    )


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage, for people, with the class of its settings."""

    name: StageName
    description: str
    uses: str
    """What else it goes by, beside its settings."""
    settings: type[Settings] = NoSettings


STAGES: Mapping[StageName, Stage] = MappingProxyType(
    {
        each.name: each
        for each in (
            Stage(
                StageName.INGESTION,
                "Reads what was sent: is it an event, and of the right shape?",
                "The rules for the shape of events, which are the same for everyone.",
                IngestionSettings,
            ),
            Stage(
                StageName.VALIDATION,
                "Holds an event against its time window, the meters of its type, the customer and "
                "the subscription.",
                "The meters, customers and subscriptions that are known when it comes.",
                ValidationSettings,
            ),
            Stage(
                StageName.DEDUPLICATION,
                "Lets the first event under an idempotencyKey count, and no other.",
                "The keys of the last 97 days.",
                DeduplicationSettings,
            ),
            Stage(
                StageName.ENRICHMENT,
                "Finds customer, team, agent, subscription and product as of the event's moment, "
                "and fixes what it cost.",
                "The hierarchy of customers and keys, and the versions of cost rates.",
            ),
            Stage(
                StageName.QUOTA_CHECK,
                "Compares usage with the quotas that subscriptions grant.",
                "The entitlements of the offering that is subscribed to.",
                QuotaCheckSettings,
            ),
            Stage(
                StageName.AGGREGATION,
                "Makes billable units of the events, for each meter and period.",
                "The meters: their filters, property and aggregation.",
            ),
            Stage(
                StageName.RATING,
                "Prices the units of a period, and rounds once for each line.",
                "The version of the rate plan that the offering names.",
            ),
            Stage(
                StageName.DISCOUNTING,
                "Takes off discounts, down to 0 and no further.",
                "The discounts of the subscription, in their order.",
            ),
            Stage(
                StageName.TAXATION,
                "Asks the tax engine about the lines net of discounts.",
                "The tax engine that was chosen, with its own settings.",
                TaxationSettings,
            ),
            Stage(
                StageName.SETTLEMENT,
                "Draws wallets, and leaves the rest on the invoice.",
                "The billing mode of the subscription, and the customer's wallets.",
                SettlementSettings,
            ),
        )
    }
)


@dataclass(frozen=True, slots=True)
class InForce:
    """The settings of every stage of a tenant, with the version of each; 0 where nothing was set
    yet, and everything is as delivered."""

    versions: Mapping[StageName, int] = field(default_factory=dict)
    chosen: Mapping[StageName, Settings] = field(default_factory=dict)

    def version(self, name: StageName) -> int:
        return self.versions.get(name, 0)

    def of(self, name: StageName) -> Settings:
        """The settings of a stage."""
        return self.chosen.get(name) or DEFAULTS[name]

    @property
    def ingestion(self) -> IngestionSettings:
        return self._typed(StageName.INGESTION, IngestionSettings)

    @property
    def validation(self) -> ValidationSettings:
        return self._typed(StageName.VALIDATION, ValidationSettings)

    @property
    def deduplication(self) -> DeduplicationSettings:
        return self._typed(StageName.DEDUPLICATION, DeduplicationSettings)

    @property
    def quota_check(self) -> QuotaCheckSettings:
        return self._typed(StageName.QUOTA_CHECK, QuotaCheckSettings)

    @property
    def taxation(self) -> TaxationSettings:
        return self._typed(StageName.TAXATION, TaxationSettings)

    @property
    def settlement(self) -> SettlementSettings:
        return self._typed(StageName.SETTLEMENT, SettlementSettings)

    def _typed(self, name: StageName, kind: type[T]) -> T:
        found = self.of(name)
        assert isinstance(found, kind), "the registry names one class for each stage"
        return found


@dataclass(frozen=True, slots=True)
class SettingForm:
    """A setting as a form shows it."""

    name: str
    description: str
    type: str
    """`BOOLEAN`, `INTEGER` or `TEXT`."""
    default: Any
    minimum: int | None
    maximum: int | None
    values: tuple[str, ...]
    """The texts that it may be; none where it is no TEXT."""


DEFAULTS: Mapping[StageName, Settings] = MappingProxyType(
    {name: stage.settings() for name, stage in STAGES.items()}
)
AS_DELIVERED = InForce()
_TYPES = {"boolean": "BOOLEAN", "integer": "INTEGER", "string": "TEXT"}


def forms(kind: type[Settings]) -> list[SettingForm]:
    """The settings of a stage, in the order in which they are declared."""
    properties = kind.model_json_schema(by_alias=True).get("properties", {})
    return [
        SettingForm(
            name=name,
            description=each["description"],
            type=_TYPES[each["type"]],
            default=each["default"],
            minimum=each.get("minimum"),
            maximum=each.get("maximum"),
            values=tuple(each.get("enum", ())),
        )
        for name, each in properties.items()
    ]


def written(settings: Settings) -> dict[str, Any]:
    """The settings by their outside names, as values for JSON."""
    return settings.model_dump(mode="json", by_alias=True)

"""Who buys from the demo's company: each customer with its terms and its habits."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from aforo.demo.catalogue import STARTER_QUOTA
from aforo.subscriptions.models import BillingMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How a customer uses what it bought: all that its events are drawn from."""

    requests_per_day: int
    input_tokens: int
    """Of a typical request."""
    output_tokens: int
    users: int
    lanes: int
    """Requests at once, at the most."""
    never_sleeps: bool = False
    """Machines that work through the night and the weekend."""
    share_of_long: float = 0.05
    images_per_day: int = 0
    sales_per_day: int = 0
    key: str | None = None
    """A key of the customer's own, by which some of its events are sent."""
    share_left: float = 1.0
    """What is left of the usage in the last seven days."""
    requests_this_period: int | None = None
    """How many requests the running period has, whatever the day; else as many as per day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A customer of the demo's company."""

    external_id: str
    name: str
    offerings: tuple[str, ...]
    habits: Habits
    time_zone: str
    country: str
    region: str | None = None
    currency: str = "USD"
    segment: str = "business"
    billing_mode: BillingMode = BillingMode.POSTPAID
    credit: Decimal | None = None
    """What its wallet starts with."""
    discounts: tuple[str, ...] = ()
    joined_on: int = 1
    """Day of the month before this one on which its subscriptions start."""


UNPROFITABLE = "robot-club"
CHURNING = "harbor-travel"
NEAR_QUOTA = "pixel-forge"

CAST = (
    Member(
        external_id="northwind",
        name="Northwind Health",
        offerings=("growth",),
        discounts=("volume-10",),
        time_zone="America/New_York",
        country="US",
        region="NY",
        segment="enterprise",
        habits=Habits(
            requests_per_day=130, input_tokens=11_000, output_tokens=900, users=60, lanes=14,
            images_per_day=4, key="northwind-triage-bot-0001",
        ),
    ),
    Member(
        external_id="kestrel",
        name="Kestrel Analytics",
        offerings=("growth", "marketplace"),
        time_zone="Europe/London",
        country="GB",
        segment="enterprise",
        habits=Habits(
            requests_per_day=105, input_tokens=16_000, output_tokens=600, users=35, lanes=10,
            share_of_long=0.2, sales_per_day=9,
        ),
    ),
    Member(
        external_id="lumen-legal",
        name="Lumen Légal",
        offerings=("growth-eu",),
        time_zone="Europe/Paris",
        country="FR",
        currency="EUR",
        habits=Habits(
            requests_per_day=60, input_tokens=24_000,
            output_tokens=1_100, users=20, lanes=6,
        ),
    ),
    Member(
        external_id="brandt",
        name="Brandt Logistik",
        offerings=("growth-eu",),
        time_zone="Europe/Berlin",
        country="DE",
        currency="EUR",
        billing_mode=BillingMode.HYBRID,
        credit=Decimal(150),
        habits=Habits(
            requests_per_day=70, input_tokens=9_000, output_tokens=700,
            users=25, lanes=8, never_sleeps=True,
        ),
    ),
    Member(
        external_id="copperline",
        name="Copperline Games",
        offerings=("starter",),
        time_zone="America/Los_Angeles",
        country="US",
        region="CA",
        billing_mode=BillingMode.PREPAID,
        credit=Decimal(400),
        habits=Habits(
            requests_per_day=50, input_tokens=6_000, output_tokens=1_400, users=12, lanes=5,
        ),
    ),
    Member(
        external_id=UNPROFITABLE,
        name="Robot Club",
        offerings=("founders",),
        time_zone="America/Chicago",
        country="US",
        region="IL",
        segment="startup",
        habits=Habits(
            requests_per_day=110, input_tokens=21_000, output_tokens=1_600, users=3, lanes=20,
            never_sleeps=True, share_of_long=0.4,
        ),
    ),
    Member(
        external_id=CHURNING,
        name="Harbor Travel",
        offerings=("growth",),
        discounts=("welcome-25",),
        time_zone="Asia/Singapore",
        country="SG",
        habits=Habits(
            requests_per_day=85, input_tokens=8_000, output_tokens=800, users=30, lanes=7,
            images_per_day=10, share_left=0.25,
        ),
    ),
    Member(
        external_id=NEAR_QUOTA,
        name="Pixel Forge",
        offerings=("starter",),
        time_zone="Australia/Sydney",
        country="AU",
        segment="startup",
        habits=Habits(
            requests_per_day=80, input_tokens=4_000, output_tokens=900, users=9, lanes=4,
            requests_this_period=STARTER_QUOTA * 93 // 100,
        ),
    ),
    Member(
        external_id="saffron",
        name="Saffron Labs",
        offerings=("growth",),
        time_zone="Asia/Kolkata",
        country="IN",
        joined_on=11,
        habits=Habits(
            requests_per_day=60, input_tokens=12_000, output_tokens=700, users=18, lanes=6,
        ),
    ),
)  # fmt: skip


def _tax(name: str, rate: str, country: str, region: str | None = None) -> Mapping[str, Any]:
    return {
        "name": name,
        "rate": rate,
        "jurisdiction": {"country": country, "region": region},
    }


TAX_SETTINGS: Mapping[str, Any] = {
    "rates": [
        _tax("Sales tax", "0.08875", "US", "NY"),
        _tax("TVA", "0.20", "FR"),
        _tax("Umsatzsteuer", "0.19", "DE"),
        _tax("VAT", "0.20", "GB"),
        _tax("GST", "0.09", "SG"),
        _tax("GST", "0.10", "AU"),
        _tax("IGST", "0.18", "IN"),
    ]
}
"""Settings of the engine `manual`."""

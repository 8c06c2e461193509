"""What a bill run computes before it writes anything: rated, indexed and taxed invoices."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

from anyio.lowlevel import checkpoint

from aforo.billing.accounts import Stretch, count_costs, count_usage, load_accounts
from aforo.billing.invoice import Bill, Counted, rate_period, taxable_lines, with_taxes
from aforo.billing.lineage import UsageLine, index_lines
from aforo.billing.models import LineKind
from aforo.billing.schedule import BillingLife, ended_parts
from aforo.billing.taxes import engine_in_force, quote
from aforo.metering.queries import Costs
from aforo.sdk import Invalid, PluginError, TaxRequest, TaxUnavailable
from aforo.storage.scope import Scope
from aforo.subscriptions.models import Customer, Subscription
from aforo.subscriptions.queries import DUE_MAX, subscriptions_due

TAX_FAILURES_MAX = 3
"""After so many calls in a row without an answer the engine is not asked again in this run."""
RATED_AT_ONCE = 50
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """One stretch with its bill, ready to be written."""

    stretch: Stretch
    bill: Bill
    line_ids: tuple[UUID, ...]
    """One per line of the bill, the same in every try of the run."""
    costs: Costs
    """What it cost us, in the currency of the bill."""
    tax_failure: str | None = None
    """Why the tax engine gave no answer: the bill is without its taxes."""

    @property
    def subscription(self) -> Subscription:
        return self.stretch.account.subscription

    @property
    def start(self) -> datetime:
        return self.stretch.part.part.start

    @property
    def end(self) -> datetime:
        return self.stretch.part.part.end


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to: bills to write, and accounts that it refuses to bill."""

    rated: Sequence[Rated]
    """By end of the period, then by subscription: the order of the invoice numbers."""
    parked: Mapping[UUID, str]
    """The reason by subscription."""


class Parking:
    """Accounts that are refused, each from a period on: later ones cannot be billed before it."""

    def __init__(self) -> None:
        self._since: dict[UUID, tuple[datetime, str]] = {}

    def park(self, stretch: Stretch, reason: str) -> None:
        """Bill neither this period of the account nor a later one; the earliest reason stands."""
        subscription_id, since = stretch.account.subscription.id, stretch.part.part.start
        held = self._since.get(subscription_id)
        if held is None or since < held[0]:
            self._since[subscription_id] = (since, reason)

    def holds(self, stretch: Stretch) -> bool:
        """Whether this period must not be billed."""
        held = self._since.get(stretch.account.subscription.id)
        return held is not None and held[0] <= stretch.part.part.start

    def keep(self, rated: Iterable[Rated]) -> list[Rated]:
        """Those that may still be billed."""
        return [one for one in rated if not self.holds(one.stretch)]

    @property
    def reasons(self) -> dict[UUID, str]:
        """Why each parked subscription is refused."""
        return {subscription_id: reason for subscription_id, (_, reason) in self._since.items()}


def life_of(subscription: Subscription, customer: Customer) -> BillingLife:
    """When a subscription is billed."""
    return BillingLife(
        anchor_day=subscription.anchor_day,
        time_zone=customer.time_zone,
        billed_until=subscription.billed_until,
        ends_at=subscription.ends_at,
        grace=timedelta(seconds=subscription.grace_seconds),
    )


async def compute(scope: Scope, *, bill_run_id: UUID, until: datetime, watermark: int) -> Outcome:
    """Rate every period that had ended by `until`, index its lines, and ask for its taxes.

    Writes nothing to PostgreSQL, so that no lock is held and no transaction id taken while
    ClickHouse and the tax engine work: the sealer waits for transactions that have one.
    """
    parking = Parking()
    stretches = await _stretches(scope, until, parking)
    counted = await count_usage(scope, stretches, watermark=watermark)
    costs = await count_costs(scope, stretches, watermark=watermark)
    rated: list[Rated] = []
    for number, (stretch, usage, cost) in enumerate(zip(stretches, counted, costs, strict=True)):
        if number % RATED_AT_ONCE == 0:
            await checkpoint()
        if not parking.holds(stretch):
            rated += _rate(parking, stretch, usage, cost, bill_run_id=bill_run_id)
    rated.sort(key=lambda one: (one.end, one.subscription.id))
    await _index(scope, parking, rated, bill_run_id=bill_run_id, watermark=watermark)
    taxed = await _tax(scope, parking, parking.keep(rated))
    return Outcome(parking.keep(taxed), parking.reasons)


async def _stretches(scope: Scope, until: datetime, parking: Parking) -> list[Stretch]:
    """Every period that can be billed, by account; the oldest first."""
    stretches: list[Stretch] = []
    after: UUID | None = None
    while page := await subscriptions_due(scope, until, after=after):
        for account in await load_accounts(scope, page):
            parts = ended_parts(life_of(account.subscription, account.customer), until)
            mine = [Stretch(account, part) for part in parts]
            if mine and account.fault:
                parking.park(mine[0], account.fault)
            else:
                stretches += mine
        after = page[-1].id
        if len(page) < DUE_MAX:
            break
    return stretches


def _rate(
    parking: Parking,
    stretch: Stretch,
    usage: Mapping[UUID, Counted],
    costs: Costs,
    *,
    bill_run_id: UUID,
) -> list[Rated]:
    """One bill, or none where the account is parked."""
    account = stretch.account
    try:
        bill = rate_period(
            account.prices.charges,
            usage,
            currency=account.currency,
            fraction=stretch.part.fraction,
            discounts=account.discounts,
        )
    except (PluginError, Invalid) as error:
        parking.park(stretch, str(error))
        return []
    period = f"{account.subscription.id}|{stretch.part.part.start.isoformat()}"
    line_ids = (uuid5(bill_run_id, f"{period}|{position}") for position in range(len(bill.lines)))
    return [
        Rated(
            stretch=stretch, bill=bill, line_ids=tuple(line_ids), costs=costs.within(bill.currency)
        )
    ]


async def _index(
    scope: Scope,
    parking: Parking,
    rated: Sequence[Rated],
    *,
    bill_run_id: UUID,
    watermark: int,
) -> None:
    lines = {line.line_id: (one, line) for one in rated for line in _usage_lines(one)}
    differences = await index_lines(
        scope, bill_run_id, [line for _, line in lines.values()], watermark=watermark
    )
    for line_id, reason in differences.items():
        parking.park(lines[line_id][0].stretch, reason)


def _usage_lines(rated: Rated) -> Iterable[UsageLine]:
    account = rated.stretch.account
    for line_id, line in zip(rated.line_ids, rated.bill.lines, strict=True):
        if line.kind is LineKind.USAGE and line.meter_id is not None:
            yield UsageLine(
                line_id=line_id,
                customer_id=account.customer.id,
                meter=account.prices.meters[line.meter_id],
                period=rated.stretch.part.part,
                events=line.event_count,
                xor=line.event_xor,
            )


async def _tax(scope: Scope, parking: Parking, rated: Sequence[Rated]) -> Sequence[Rated]:
    """Stage 9 for every bill. An engine that is down leaves its bills without taxes, and says so
    on them; one that fails parks the account."""
    try:
        engine = await engine_in_force(scope)
    except PluginError as error:
        for one in rated:
            parking.park(one.stretch, str(error))
        return []
    if engine is None:
        return rated
    taxed: list[Rated] = []
    failures = 0
    for one in rated:
        if failures == TAX_FAILURES_MAX:
            taxed.append(replace(one, tax_failure=taxed[-1].tax_failure))
            continue
        try:
            applied = await quote(engine, _request(one))
        except TaxUnavailable as error:
            failures += 1
            taxed.append(replace(one, tax_failure=str(error)))
        except PluginError as error:
            parking.park(one.stretch, str(error))
        else:
            failures = 0
            taxed.append(replace(one, bill=with_taxes(one.bill, applied)))
    return taxed


def _request(rated: Rated) -> TaxRequest:
    customer = rated.stretch.account.customer
    last = (rated.end - _MICROSECOND).astimezone(ZoneInfo(customer.time_zone))
    return TaxRequest(
        currency=rated.bill.currency,
        country=customer.country,
        region=customer.region,
        postal_code=customer.postal_code,
        tax_number=customer.tax_number,
        date=last.date(),
        lines=taxable_lines(rated.bill),
    )

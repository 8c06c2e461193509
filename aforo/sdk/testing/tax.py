"""What every tax engine promises: named taxes at known rates, on lines that were asked about."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal

from aforo.sdk.money import exact
from aforo.sdk.tax import AppliedTax, TaxableLine, TaxEngine, TaxRequest, TaxUnavailable
from aforo.sdk.testing.contract import Case, answer_of, check, demand, is_text

NAME_CHARACTERS_MAX = 200
RATE_MAX = 100
_LINES = (
    TaxableLine(id="1", category=None, net=Decimal("100.00")),
    TaxableLine(id="2", category="saas", net=Decimal("0.01")),
    TaxableLine(id="3", category="books", net=Decimal("0.00")),
)
_PLACES = ((None, None), ("US", "CA"), ("US", None), ("DE", None), ("CA", "QC"))


@check(TaxEngine)
def it_names_taxes_with_their_rates(case: Case) -> None:
    for request in _requests():
        for tax in _taxes(case, request):
            demand(isinstance(tax, AppliedTax), f"{tax!r} is no AppliedTax")
            demand(
                all(
                    is_text(each, length_max=NAME_CHARACTERS_MAX)
                    for each in (tax.name, tax.jurisdiction)
                ),
                f"a tax and its jurisdiction have names of 1 to {NAME_CHARACTERS_MAX} characters",
            )
            rate = tax.rate
            demand(
                isinstance(rate, Decimal) and rate.is_finite() and 0 <= rate <= RATE_MAX,
                f"{tax.name!r} has the rate {tax.rate!r}: a Decimal from 0 on; 0.19 is 19 %",
            )
            demand(
                isinstance(tax.inclusive, bool),
                f"{tax.name!r} does not say whether it is inclusive",
            )


@check(TaxEngine)
def it_taxes_lines_that_were_asked_about_and_each_once(case: Case) -> None:
    for request in _requests():
        taxes = _taxes(case, request)
        asked = {line.id for line in request.lines}
        for tax in taxes:
            demand(
                isinstance(tax.line_ids, tuple) and tax.line_ids and set(tax.line_ids) <= asked,
                f"{tax.name!r} is on {tax.line_ids!r}: a tuple of ids of the request's lines",
            )
        times = Counter(
            (tax.name, tax.jurisdiction, tax.rate, line) for tax in taxes for line in tax.line_ids
        )
        twice = [identity[0] for identity, count in times.items() if count > 1]
        demand(not twice, f"{twice} fall on the same line twice")


@check(TaxEngine)
def an_amount_that_it_states_is_its_rate_on_its_lines(case: Case) -> None:
    for request in _requests():
        nets = {line.id: line.net for line in request.lines}
        for tax in _taxes(case, request):
            if tax.amount is None:
                continue
            demand(
                isinstance(tax.amount, Decimal) and tax.amount.is_finite() and tax.amount >= 0,
                f"{tax.name!r} has the amount {tax.amount!r}: a Decimal of 0 or more",
            )
            with exact():
                base = sum((nets[line] for line in tax.line_ids), Decimal(0))
                on_top = base * tax.rate
            # Rounded by line at worst; what lies inside of a price is less than on top of it.
            slack = Decimal("0.01") * len(tax.line_ids)
            least = Decimal(0) if tax.inclusive else on_top - slack
            demand(
                least <= tax.amount <= on_top + slack,
                f"{tax.name!r} comes to {tax.amount:f} at {tax.rate:f} on {base:f}",
            )


@check(TaxEngine)
def the_same_request_gives_the_same_taxes(case: Case) -> None:
    for request in _requests():
        first, second = _taxes(case, request), _taxes(case, request)
        # Where a service was down for one of them there is nothing to compare.
        if first and second:
            demand(
                Counter(first) == Counter(second),
                f"asked twice about {request.country}, it gives different taxes",
            )


@check(TaxEngine)
def no_lines_have_no_taxes(case: Case) -> None:
    for country, region in _PLACES:
        demand(
            not _taxes(case, _request(country, region, lines=())), "without lines there is no tax"
        )


def _requests() -> Iterator[TaxRequest]:
    for country, region in _PLACES:
        yield _request(country, region, lines=_LINES)


def _request(
    country: str | None, region: str | None, *, lines: tuple[TaxableLine, ...]
) -> TaxRequest:
    return TaxRequest(
        currency="USD",
        country=country,
        region=region,
        postal_code="94105" if region == "CA" else None,
        tax_number=None,
        date=date(2026, 11, 30),
        lines=lines,
    )


def _taxes(case: Case, request: TaxRequest) -> Sequence[AppliedTax]:
    taxes = answer_of(_quote(case.configured(), request), down=TaxUnavailable)
    if taxes is None:
        return ()
    demand(
        isinstance(taxes, Sequence) and not isinstance(taxes, str | bytes),
        f"it answers with a {type(taxes).__name__}, not with a sequence of taxes",
    )
    return taxes


async def _quote(engine: TaxEngine, request: TaxRequest) -> Sequence[AppliedTax]:
    return await engine.quote(request)

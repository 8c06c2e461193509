"""Manual tax: rates that the tenant writes down, by jurisdiction and tax category."""

from typing import Annotated

from pydantic import Field, StrictBool, StringConstraints

from aforo.sdk import AppliedTax, Rate, Settings, TaxableLine, TaxEngine, TaxRequest

RATES_MAX = 500
EVERYWHERE = "everywhere"

Name = Annotated[str, StringConstraints(min_length=1, max_length=80)]


class Jurisdiction(Settings):
    """A country, or one of its regions."""

    country: str = Field(pattern=r"^[A-Z]{2}$", description="ISO 3166-1 alpha-2, such as US.")
    region: str | None = Field(
        default=None,
        pattern=r"^[A-Z0-9]{1,3}$",
        description="Second part of the ISO 3166-2 code, such as CA; null for the whole country.",
    )


class ManualRate(Settings):
    """One tax at one rate."""

    name: Name
    rate: Rate = Field(le=1, description="A share of the base: 0.0825 is 8.25 %.")
    jurisdiction: Jurisdiction | None = Field(default=None, description="Null: everywhere.")
    category: Name | None = Field(default=None, description="Null: every tax category.")
    inclusive: StrictBool = Field(
        default=False, description="Whether prices already contain this tax."
    )


class ManualTax(TaxEngine):
    """Rates of different jurisdictions add up, as a country's and its region's do.

    Within one jurisdiction a rate that names a line's category takes the place of those that name
    none: a reduced rate, or an exemption at 0, is not added to the standard one.
    """

    key = "manual"
    summary = "Rates that you write down, by jurisdiction and tax category"
    examples = (
        {
            "rates": [
                {"name": "VAT", "rate": "0.19", "jurisdiction": {"country": "DE"}},
                {"name": "Sales tax", "rate": "0.0725", "jurisdiction": {"country": "US"}},
                {"name": "Levy", "rate": "0.01", "inclusive": True},
            ]
        },
    )

    rates: tuple[ManualRate, ...] = Field(default=(), max_length=RATES_MAX)

    async def quote(self, request: TaxRequest) -> list[AppliedTax]:
        """One tax per rate that is due on a line; the core computes the amounts."""
        taxes = []
        for rate in self.rates:
            line_ids = tuple(line.id for line in request.lines if self._is_due(rate, line, request))
            if line_ids:
                taxes.append(
                    AppliedTax(
                        name=rate.name,
                        jurisdiction=_code(rate.jurisdiction),
                        rate=rate.rate,
                        inclusive=rate.inclusive,
                        line_ids=line_ids,
                    )
                )
        return taxes

    def _is_due(self, rate: ManualRate, line: TaxableLine, request: TaxRequest) -> bool:
        if not _is_in(rate.jurisdiction, request):
            return False
        if rate.category is not None:
            return rate.category == line.category
        return line.category is None or not any(
            other.category == line.category and other.jurisdiction == rate.jurisdiction
            for other in self.rates
        )


def _is_in(jurisdiction: Jurisdiction | None, request: TaxRequest) -> bool:
    if jurisdiction is None:
        return True
    return jurisdiction.country == request.country and jurisdiction.region in (None, request.region)


def _code(jurisdiction: Jurisdiction | None) -> str:
    if jurisdiction is None:
        return EVERYWHERE
    return "-".join(part for part in (jurisdiction.country, jurisdiction.region) if part)

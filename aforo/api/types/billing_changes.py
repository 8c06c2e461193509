"""GraphQL of the bills: what can be started and chosen."""

from datetime import datetime
from typing import Annotated

import strawberry

from aforo.api.parts.context import Info
from aforo.api.parts.fields import mutation
from aforo.api.parts.problems import InvalidProblem, NotFoundProblem
from aforo.api.parts.scalars import JSON
from aforo.api.types.billing import BillRun
from aforo.api.types.taxes import TaxSettings
from aforo.billing import commands
from aforo.sdk import Invalid
from aforo.tenants.permissions import Permission


@strawberry.input(description="What to bill.")
class StartBillRunInput:
    until: datetime = strawberry.field(
        description="Every period that had ended by this moment, which is not in the future."
    )


@strawberry.input(description="The tax engine to use from now on.")
class SetTaxEngineInput:
    engine: str = strawberry.field(description="Key of a tax engine; see `taxEngines`.")
    settings: JSON = strawberry.field(description="Its settings as an object.")


StartBillRunResult = Annotated[
    BillRun | InvalidProblem,
    strawberry.union("StartBillRunResult", description="The run, or why there is none."),
]
SetTaxEngineResult = Annotated[
    TaxSettings | InvalidProblem | NotFoundProblem,
    strawberry.union("SetTaxEngineResult", description="The settings, or why they are refused."),
]


@strawberry.type
class BillingMutation:
    @mutation(
        "Bill every period that has ended; the run goes on in the background.",
        needs=Permission.BILLING_WRITE,
    )
    async def start_bill_run(self, info: Info, input: StartBillRunInput) -> StartBillRunResult:
        async with info.context.scope() as scope:
            row = await commands.start_bill_run(scope, until=input.until)
        return BillRun.from_row(row)

    @mutation(
        "Choose the tax engine; invoices that become final from now on use it.",
        needs=Permission.BILLING_WRITE,
    )
    async def set_tax_engine(self, info: Info, input: SetTaxEngineInput) -> SetTaxEngineResult:
        if not isinstance(input.settings, dict):
            raise Invalid("settings are a JSON object", field="settings")
        async with info.context.scope() as scope:
            row = await commands.set_tax_engine(scope, engine=input.engine, settings=input.settings)
        return TaxSettings.from_row(row)

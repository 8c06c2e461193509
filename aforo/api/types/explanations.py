"""GraphQL of AI features: what they say of an invoice."""

from uuid import UUID

import strawberry

from aforo.api.parts.context import Info
from aforo.api.parts.scalars import JSON
from aforo.billing import queries
from aforo.billing.explain import explain


@strawberry.type(description="What an AI feature says of an invoice; no model was asked.")
class InvoiceExplanation:
    feature: str = strawberry.field(description="Key of the feature.")
    answer: str = strawberry.field(description="The answer from the invoice's own numbers.")
    instructions: str = strawberry.field(description="What a model would be told to do.")
    data: JSON = strawberry.field(description="What a model would be shown as data.")


async def explanation_of(info: Info, invoice_id: UUID, feature: str) -> InvoiceExplanation | None:
    """What a feature says of an invoice; None where a draft has gone meanwhile.

    Raises: `NotFound` for the feature; `PluginError` where it fails.
    """
    async with info.context.scope() as scope:
        facts = await queries.invoice_facts(scope, invoice_id)
    if facts is None:
        return None
    said = explain(info.context.runtime.plugins, feature, facts)
    return InvoiceExplanation(
        feature=said.feature,
        answer=said.answer,
        instructions=said.instructions,
        data=JSON(said.data),
    )

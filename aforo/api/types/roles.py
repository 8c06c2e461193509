"""GraphQL of the roles that members have."""

from aforo.api.parts.fields import publish_enum
from aforo.tenants.permissions import Role

publish_enum(
    Role,
    "What a member is to the tenant.",
    OWNER="May do everything, and alone makes or removes owners.",
    ADMIN="May do everything else.",
    BILLING="Keeps customers, invoices and wallets.",
    ANALYST="Reads what is sold, used, billed and detected.",
    SUPPORT="Keeps customers and their subscriptions, and reads the rest about them.",
    DEVELOPER="Connects the product: catalogue, events, webhooks.",
)

__all__ = ["Role"]

"""What a caller may do: permissions by domain, and the roles that bundle them."""

from enum import StrEnum
from types import MappingProxyType


class Permission(StrEnum):
    """A right to read or to write one domain, or to use one of the two routes of machines."""

    ACCESS_READ = "access_read"
    """Members, their roles, and API keys."""
    ACCESS_WRITE = "access_write"
    CATALOG_READ = "catalog_read"
    """What is sold: products, meters, cost rates, rate plans, entitlements, offerings."""
    CATALOG_WRITE = "catalog_write"
    CUSTOMERS_READ = "customers_read"
    """Who bought it: customers, what is below them, and subscriptions."""
    CUSTOMERS_WRITE = "customers_write"
    USAGE_READ = "usage_read"
    """Events, usage over time, what is quarantined, and quotas."""
    USAGE_WRITE = "usage_write"
    BILLING_READ = "billing_read"
    """Invoices, bill runs, wallets, taxes and discounts."""
    BILLING_WRITE = "billing_write"
    SIGNALS_READ = "signals_read"
    """Signals, the settings of detectors, and actions."""
    SIGNALS_WRITE = "signals_write"
    REPORTS_READ = "reports_read"
    """Revenue, cost and margin."""
    WEBHOOKS_READ = "webhooks_read"
    """Endpoints that are told of events, and what was delivered to them."""
    WEBHOOKS_WRITE = "webhooks_write"
    AUDIT_READ = "audit_read"
    """Who did what, and when."""
    INGEST = "ingest"
    """Send usage events, and nothing else."""
    CHECK = "check"
    """Ask whether a customer may use something, hold units of it, and nothing else."""


class Role(StrEnum):
    """What a member is to the tenant; `permissions_of` says what it may do."""

    OWNER = "owner"
    """May do everything, and is the only one who makes or removes an owner."""
    ADMIN = "admin"
    """May do everything else."""
    BILLING = "billing"
    """Keeps customers, invoices and wallets."""
    ANALYST = "analyst"
    """Reads what is sold, used, billed and detected, and changes nothing."""
    SUPPORT = "support"
    """Helps customers: keeps them and their subscriptions, reads the rest about them."""
    DEVELOPER = "developer"
    """Connects the product: catalogue, events, webhooks."""


EVERY_PERMISSION = frozenset(Permission)

PORTAL_PERMISSIONS = frozenset(
    {
        Permission.CATALOG_READ,
        Permission.CUSTOMERS_READ,
        Permission.USAGE_READ,
        Permission.BILLING_READ,
    }
)
"""What a portal token may read, of its one customer."""

_ABOUT_CUSTOMERS = PORTAL_PERMISSIONS | {Permission.SIGNALS_READ}

_PERMISSIONS = MappingProxyType(
    {
        Role.OWNER: EVERY_PERMISSION,
        Role.ADMIN: EVERY_PERMISSION,
        Role.BILLING: _ABOUT_CUSTOMERS
        | {Permission.CUSTOMERS_WRITE, Permission.BILLING_WRITE, Permission.REPORTS_READ},
        Role.ANALYST: _ABOUT_CUSTOMERS | {Permission.REPORTS_READ},
        Role.SUPPORT: _ABOUT_CUSTOMERS | {Permission.CUSTOMERS_WRITE},
        # No ACCESS_WRITE: who hands out keys and roles decides about everything else.
        Role.DEVELOPER: frozenset(
            {
                Permission.ACCESS_READ,
                Permission.CATALOG_READ,
                Permission.CATALOG_WRITE,
                Permission.CUSTOMERS_READ,
                Permission.USAGE_READ,
                Permission.USAGE_WRITE,
                Permission.SIGNALS_READ,
                Permission.WEBHOOKS_READ,
                Permission.WEBHOOKS_WRITE,
                Permission.INGEST,
                Permission.CHECK,
            }
        ),
    }
)


def permissions_of(role: Role) -> frozenset[Permission]:
    """What a role may do; a role has no other rights, and none is added by hand."""
    return _PERMISSIONS[role]


def read_in(permission: Permission) -> Permission | None:
    """The right to read in the domain of a right to write; None where it is no such right."""
    domain, separator, _ = permission.name.rpartition("_WRITE")
    return Permission[f"{domain}_READ"] if separator else None

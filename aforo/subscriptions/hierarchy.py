"""The billing hierarchy: from what an event names to customer, team, agent and key."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import msgspec

from aforo.sdk import AgentId, CustomerId, CustomerKeyId, TeamId


class Unplaced(StrEnum):
    """Why an event has no place in the hierarchy; the value is the verdict's code."""

    UNKNOWN_CUSTOMER = "UNKNOWN_CUSTOMER"
    KEY_UNKNOWN = "KEY_UNKNOWN"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Who an event belongs to, down to the lowest level that is known."""

    customer_id: CustomerId
    team_id: TeamId | None = None
    agent_id: AgentId | None = None
    customer_key_id: CustomerKeyId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLife:
    """A customer's key, where it leads, and the moments `[valid_from, valid_to)` it is good for."""

    place: Place
    valid_from: datetime
    valid_to: datetime | None = None

    def contains(self, at: datetime) -> bool:
        return self.valid_from <= at and (self.valid_to is None or at < self.valid_to)


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasLife:
    """A customer behind another id, and the moments `[valid_from, valid_to)` it stands for it."""

    customer_id: CustomerId
    valid_from: datetime
    valid_to: datetime | None = None

    def contains(self, at: datetime) -> bool:
        return self.valid_from <= at and (self.valid_to is None or at < self.valid_to)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """What one batch of events needs to know of a tenant's customers and their keys."""

    customers: Mapping[str, CustomerId]
    """By the tenant's own id of the customer."""
    keys: Mapping[bytes, KeyLife]
    """By the hash that `hash_customer_key` gives."""
    aliases: Mapping[str, AliasLife] = field(default_factory=dict)
    """By the other id that they stand for."""

    @property
    def customer_ids(self) -> set[CustomerId]:
        """Every customer that something in the batch leads to."""
        by_key = {life.place.customer_id for life in self.keys.values()}
        by_alias = {life.customer_id for life in self.aliases.values()}
        return by_key.union(self.customers.values(), by_alias)

    def lookup(
        self, *, customer: str | None, key_hash: bytes | None, at: datetime
    ) -> Place | Unplaced:
        """The place of an event that names a customer, a key, or both, as of `at`.

        Where both are named, the key must have been the customer's at that moment.
        """
        assert customer is not None or key_hash is not None, "an event without both is rejected"
        customer_id = None
        if customer is not None:
            customer_id = self.customers.get(customer) or self._behind(customer, at)
            if customer_id is None:
                return Unplaced.UNKNOWN_CUSTOMER
            if key_hash is None:
                return Place(customer_id=customer_id)
        key = self.keys.get(key_hash) if key_hash is not None else None
        if key is None or not key.contains(at):
            return Unplaced.KEY_UNKNOWN
        if customer_id is not None and key.place.customer_id != customer_id:
            return Unplaced.KEY_UNKNOWN
        return key.place

    def _behind(self, alias: str, at: datetime) -> CustomerId | None:
        life = self.aliases.get(alias)
        return life.customer_id if life is not None and life.contains(at) else None


def hash_customer_key(secret: str, *, pepper: str) -> bytes:
    """What is stored of a customer's key, and looked up: HMAC-SHA256 under the pepper."""
    # The prefix keeps these hashes apart from other uses of the same pepper.
    return hmac.digest(pepper.encode(), b"customer-key:" + secret.encode(), "sha256")

"""Who does something: the caller of a request, a job, or whoever runs a command."""

from contextvars import ContextVar
from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID


class ActorKind(StrEnum):
    """By what an actor is known."""

    API_KEY = "api_key"
    MEMBER = "member"
    PORTAL = "portal"
    JOB = "job"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who opened a scope, and from where."""

    kind: ActorKind
    id: UUID | None = None
    """Of the API key, the member, the portal session, or the job."""
    label: str = ""
    """Tells a person which one it is: a key's public id, an address, the name of a job."""
    request_id: str | None = None
    address: str | None = None
    """Of the client, as an IP address."""
    user_agent: str | None = None
    operation: str | None = None
    """What is being done, as the audit log names it. With one, every row that is written in the
    scope is recorded; without, only what is recorded by hand."""

    def here(self) -> "Actor":
        """The same actor as the sender of the request that is being answered."""
        if (origin := ORIGIN.get()) is None:
            return self
        return replace(
            self,
            request_id=origin.request_id,
            address=origin.address,
            user_agent=origin.user_agent,
        )

    def doing(self, operation: str | None) -> "Actor":
        """The same actor at another operation."""
        return replace(self, operation=operation)


@dataclass(frozen=True, slots=True)
class Origin:
    """A request, and the client behind it."""

    request_id: str
    address: str | None
    user_agent: str | None


ORIGIN: ContextVar[Origin | None] = ContextVar("origin", default=None)
"""Of the request that is being answered. A task that it starts inherits it."""

INSTALLATION = Actor(ActorKind.OPERATOR)
"""Whoever runs Aforo here, by its commands."""

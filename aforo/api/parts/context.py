"""What a resolver knows: who calls, how to open a scope, and the operation's loaders."""

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import strawberry

from aforo.api.parts.loaders import BatchQuery, Loaders
from aforo.storage.actors import Actor, ActorKind
from aforo.storage.savepoints import Savepoints
from aforo.storage.scope import Runtime, Scope
from aforo.tenants.queries import Caller

if TYPE_CHECKING:
    from aforo.api.parts.live import Followed

V = TypeVar("V")


@dataclass(slots=True)
class Context:
    """One operation of one caller."""

    runtime: Runtime
    caller: Caller
    request_id: str
    remembers: bool = True
    """Whether a key that was loaded once is not loaded again."""
    savepoints: Savepoints | None = None
    """Of the one transaction that the whole operation is, where it is one."""
    resume_after: str | None = None
    """Cursor of the last answer that a reader of this subscription had, as its transport says."""
    followed: "Followed | None" = field(default=None, init=False, repr=False)
    """The live stream behind this subscription, once it is open."""
    mutation: str | None = None
    """The field of a mutation that is being carried out; they run one after the other."""
    _loaders: Loaders = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._loaders = Loaders(self.scope, remembers=self.remembers)

    def scope(self) -> AbstractAsyncContextManager[Scope]:
        """Open a scope of the caller's tenant, and for a portal of its customer alone: a
        transaction that commits unless it raises, or a savepoint of the operation's transaction.
        Not inside of an open scope."""
        by = actor_of(self.caller, operation=self.mutation)
        if self.savepoints is not None:
            return self.savepoints.scope(by)
        customer_id = self.caller.customer_id
        return self.runtime.scope(self.caller.tenant_id, by, customer_id=customer_id)

    def load(self, query: BatchQuery[UUID, V], key: UUID) -> Awaitable[V | None]:
        """What a batch query `(scope, keys) -> {key: value}` gives for one key, or None.

        Resolvers that ask at the same time share one call. Not inside of an open scope.
        """
        return self._loaders.load(query, key)


Info = strawberry.Info[Context, None]


def actor_of(caller: Caller, *, operation: str | None = None) -> Actor:
    """A caller as the audit log names him."""
    kind = ActorKind(caller.kind.value)
    return Actor(kind, id=caller.id, label=caller.label, operation=operation).here()

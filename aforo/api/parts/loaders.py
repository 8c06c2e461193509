"""Loads what many resolvers of one operation ask for in one query each."""

from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from strawberry.dataloader import DataLoader

from aforo.storage.scope import Scope

BATCH_MAX = 1_000
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

BatchQuery = Callable[[Scope, Collection[K]], Awaitable[Mapping[K, V]]]
OpenScope = Callable[[], AbstractAsyncContextManager[Scope]]


class Loaders:
    """One operation's loaders, one per query, made when first asked for.

    They live as long as an operation: a longer life would answer from the past.
    """

    def __init__(self, open_scope: OpenScope, *, remembers: bool = True) -> None:
        self._open_scope = open_scope
        self._remembers = remembers
        self._loaders: dict[Any, DataLoader[Any, Any]] = {}

    async def load(self, query: BatchQuery[K, V], key: K) -> V | None:
        """What the query gives for a key, or None; keys of sibling resolvers share one call.

        Never await this inside of an open scope: every batch opens its own, and resolvers that
        hold one connection while they wait for a second can wait for each other.
        """
        loader = self._loaders.get(query)
        if loader is None:
            loader = self._loaders[query] = self._loader(query)
        found: V | None = await loader.load(key)
        return found

    def _loader(self, query: BatchQuery[K, V]) -> DataLoader[K, V | None]:
        async def load(keys: list[K]) -> list[V | None]:
            async with self._open_scope() as scope:
                found = await query(scope, keys)
            return [found.get(key) for key in keys]

        return DataLoader(load, max_batch_size=BATCH_MAX, cache=self._remembers)

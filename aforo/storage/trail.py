"""What a session writes, row by row, as it was before and as it is after: for the audit log.

Rows that go through the unit of work are seen by its events. Statements that write past it are
looked at before and after they run. Of one whose rows cannot be told beforehand only their number
is noted; a test sees to it that no mutation rests on that.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, UOWTransaction
from sqlalchemy.orm.attributes import get_history
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE

from aforo.storage.actors import Actor
from aforo.storage.postgres import TenantSession
from aforo.storage.tables import TenantRow
from aforo.storage.values import camel, shown

ROWS_MAX = 50
"""Of one entry; more are counted."""

_WRITES = re.compile(
    r"\b(insert\s+into|delete\s+from|merge\s+into|truncate"
    r"|update\s+[\w.\"]+\s+(as\s+\w+\s+)?set)\b",
    re.IGNORECASE,
)
_UNSEEN = frozenset({"tenant_id", "id"})

Row = Mapping[str, Any]
Key = tuple[Any, ...]


@dataclass(slots=True)
class Change:
    """One row, before and after; None where it was, or is, not there."""

    kind: str
    """The name of its class."""
    key: Key
    """Within the tenant."""
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    @property
    def id(self) -> UUID | None:
        """Of the row, where it has one."""
        return self.key[0] if len(self.key) == 1 and isinstance(self.key[0], UUID) else None

    def then(self, later: "Change") -> "Change | None":
        """Both as one; None where nothing is left of it."""
        if self.before is None and later.after is None:
            return None
        if self.before is None or later.after is None:
            return Change(self.kind, self.key, self.before, _merged(self.after, later.after))
        before = {**(later.before or {}), **self.before}
        return Change(self.kind, self.key, before, _merged(self.after, later.after))


Changes = dict[tuple[str, Key], Change]


@dataclass(slots=True)
class Trail:
    """What was written since the last entry."""

    actor: Actor
    changes: Changes = field(default_factory=dict)
    omitted: int = 0
    """Rows past the limit."""
    marks: dict[SessionTransaction, tuple[Changes, int]] = field(default_factory=dict)
    """What it was at the start of each savepoint that is open."""

    def add(self, change: Change) -> None:
        """Note a change; several of one row are one."""
        key = (change.kind, change.key)
        earlier = self.changes.pop(key, None)
        whole = change if earlier is None else earlier.then(change)
        if whole is None:
            return
        if earlier is None and len(self.changes) >= ROWS_MAX:
            self.omitted += 1
            return
        self.changes[key] = whole

    def taken(self) -> tuple[list[Change], int]:
        """What there is, which is forgotten here."""
        found = list(self.changes.values()), self.omitted
        self.changes, self.omitted = {}, 0
        return found


def follow(session: Session, actor: Actor) -> None:
    """Follow what a session writes from now on, if the actor's operation is to be recorded."""
    session.info["actor"] = actor
    session.info["trail"] = None if actor.operation is None else Trail(actor)


def lose(session: Session) -> None:
    """Follow no longer: what was written since the last entry was undone."""
    session.info["trail"] = None


def trail_of(session: Session) -> Trail | None:
    """The trail of a session that is followed."""
    trail: Trail | None = session.info.get("trail")
    return trail


@event.listens_for(TenantSession, "after_flush")
def _note_rows(session: Session, _flush: UOWTransaction) -> None:
    if (trail := trail_of(session)) is None:
        return
    for row in session.new:
        if is_audited(type(row)):
            trail.add(_change(row, None, _columns(row)))
    for row in session.dirty:
        if is_audited(type(row)) and (changed := dict(_changed(row))):
            before = {name: old for name, (old, _) in changed.items()}
            after = {name: new for name, (_, new) in changed.items()}
            trail.add(_change(row, before, after))
    for row in session.deleted:
        if is_audited(type(row)):
            trail.add(_change(row, _columns(row), None))


@event.listens_for(TenantSession, "do_orm_execute")
def _note_statement(state: ORMExecuteState) -> Any:
    if (trail := trail_of(state.session)) is None or state.is_select:
        return None
    statement: Any = state.statement
    if isinstance(statement, sa.TextClause):
        return _counted(state, trail, "SQL") if _WRITES.search(statement.text) else None
    if not (state.is_insert or state.is_update or state.is_delete):
        return None
    table = statement.table
    kind = _class_of(table)
    if kind is None or not is_audited(kind):
        return None
    where = _rows_of_insert(state) if state.is_insert else _rows_of_change(state)
    if where is None:
        return _counted(state, trail, _class_name(table))
    before = _found(state.session, table, where)
    if not state.is_insert:
        # What is changed may no longer fit the condition that chose it.
        where = _has_key(table, [_key(table, row) for row in before])
    result = state.invoke_statement()
    after = _found(state.session, table, where)
    _note_difference(trail, table, before, after)
    trail.omitted += max(_count(result) - ROWS_MAX - 1, 0)
    return result


def _counted(state: ORMExecuteState, trail: Trail, kind: str) -> Any:
    result = state.invoke_statement()
    trail.add(Change(kind, ("rows", len(trail.changes)), None, {"rows": _count(result)}))
    return result


def _count(result: Any) -> int:
    return int(getattr(result, "rowcount", 0))


@event.listens_for(TenantSession, "after_transaction_create")
def _mark(session: Session, transaction: SessionTransaction) -> None:
    if transaction.nested and (trail := trail_of(session)) is not None:
        trail.marks[transaction] = (dict(trail.changes), trail.omitted)


@event.listens_for(TenantSession, "after_soft_rollback")
def _rewind(session: Session, transaction: SessionTransaction) -> None:
    trail = trail_of(session)
    if trail is not None and transaction in trail.marks:
        trail.changes, trail.omitted = trail.marks.pop(transaction)


def is_audited(kind: type) -> bool:
    """Whether rows of this class are shown in the audit log."""
    return issubclass(kind, TenantRow) and kind.is_audited


def _note_difference(
    trail: Trail, table: sa.Table, before: Iterable[Row], after: Iterable[Row]
) -> None:
    old = {_key(table, row): row for row in before}
    new = {_key(table, row): row for row in after}
    for key in old | new:
        was, now = old.get(key), new.get(key)
        if was is not None and now is not None:
            names = [name for name in now if now[name] != was[name]]
            if not names:
                continue
            was, now = {name: was[name] for name in names}, {name: now[name] for name in names}
        trail.add(_shown(table, key, was, now))


def _rows_of_change(state: ORMExecuteState) -> sa.ColumnElement[bool]:
    statement: Any = state.statement
    given = state.parameters
    names = [column.name for column in _key_columns(statement.table)]
    if isinstance(given, list) and all(name in each for each in given for name in names):
        some = given[: ROWS_MAX + 1]
        return _has_key(statement.table, [tuple(each[name] for name in names) for each in some])
    return sa.and_(sa.true(), *statement._where_criteria)  # noqa: SLF001 — it has no public name.


def _rows_of_insert(state: ORMExecuteState) -> sa.ColumnElement[bool] | None:
    """The rows that an insert may write: by the key it conflicts on, else by id. None where it
    does not say."""
    statement: Any = state.statement
    clause = statement._post_values_clause  # noqa: SLF001
    target = getattr(clause, "inferred_target_elements", None)
    named = [_name(each) for each in target or _key_columns(statement.table)]
    names = [name for name in named if name != "tenant_id"]
    rows = list(islice(_values_of(state), ROWS_MAX + 1))
    if not names:
        return sa.true()  # A tenant has one row of it.
    if not all(name in row for row in rows for name in names):
        return None
    columns = [statement.table.c[name] for name in names]
    return sa.tuple_(*columns).in_([tuple(row[name] for name in names) for row in rows])


def _name(element: Any) -> str:
    return str(getattr(element, "name", element))


def _values_of(state: ORMExecuteState) -> Iterator[dict[str, Any]]:
    statement: Any = state.statement
    fixed = {_name(column): _literal(value) for column, value in (statement._values or {}).items()}  # noqa: SLF001
    for rows in statement._multi_values or ():  # noqa: SLF001
        for row in rows:
            yield {_name(column): _literal(value) for column, value in row.items()}
    if not statement._multi_values:  # noqa: SLF001
        given: Any = state.parameters
        for row in given if isinstance(given, list) else [given or {}]:
            yield {**fixed, **row}


def _literal(value: Any) -> Any:
    return value.value if isinstance(value, sa.BindParameter) else value


def _found(session: Session, table: sa.Table, where: sa.ColumnElement[bool]) -> list[Row]:
    own = table.c.tenant_id == session.info["tenant_id"]
    query = sa.select(table).where(own, where).limit(ROWS_MAX + 1)
    return [dict(row) for row in session.connection().execute(query).mappings()]


def _key_columns(table: sa.Table) -> list[sa.Column[Any]]:
    """What tells rows of one tenant apart; the tenant itself where it has one row."""
    columns = [column for column in table.primary_key if column.name != "tenant_id"]
    return columns or [table.c.tenant_id]


def _key(table: sa.Table, row: Row) -> Key:
    return tuple(row[column.name] for column in _key_columns(table))


def _has_key(table: sa.Table, keys: list[Key]) -> sa.ColumnElement[bool]:
    return sa.tuple_(*_key_columns(table)).in_(keys)


def _change(row: Any, before: Row | None, after: Row | None) -> Change:
    table: sa.Table = row.__table__
    key = tuple(getattr(row, column.name) for column in _key_columns(table))
    return _shown(table, key, before, after)


def _shown(table: sa.Table, key: Key, before: Row | None, after: Row | None) -> Change:
    return Change(_class_name(table), key, _readable(table, before), _readable(table, after))


def _readable(table: sa.Table, row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        camel(name): shown(value, secret=bool(table.c[name].info.get("secret")))
        for name, value in row.items()
        if name not in _UNSEEN
    }


def _columns(row: Any) -> dict[str, Any]:
    loaded = sa.inspect(row).dict
    return {name: loaded[name] for name in _names(row) if name in loaded}


def _names(row: Any) -> list[str]:
    return [column.name for column in row.__table__.c]


def _changed(row: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for name in _names(row):
        history = get_history(row, name, passive=PASSIVE_NO_INITIALIZE)
        if history.has_changes():
            old = history.deleted[0] if history.deleted else None
            new = history.added[0] if history.added else None
            if old != new:
                yield name, (old, new)


def _merged(first: dict[str, Any] | None, last: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if last is None else {**(first or {}), **last}


_CLASSES: dict[str, type[TenantRow]] = {}


def _class_of(table: sa.Table) -> type[TenantRow] | None:
    if table.name not in _CLASSES:
        _CLASSES.update({str(kind.__tablename__): kind for kind in _mapped(TenantRow)})
    return _CLASSES.get(table.name)


def _mapped(kind: type[TenantRow]) -> Iterator[type[TenantRow]]:
    for each in kind.__subclasses__():
        if hasattr(each, "__table__"):
            yield each
        yield from _mapped(each)


def _class_name(table: sa.Table) -> str:
    kind = _class_of(table)
    assert kind is not None, "a table of the audit log has a class"
    return kind.__name__

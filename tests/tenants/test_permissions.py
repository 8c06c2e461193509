"""Roles and what they may do, and the table of the manual that says so."""

import re
from pathlib import Path

from aforo.tenants.permissions import Permission, Role, permissions_of, read_in


def test_the_manual_has_the_permissions_of_every_role(repository: Path) -> None:
    page = (repository / "docs/authentication.md").read_text()
    head, _, *rows = re.findall(r"^\| *(.+?) *\|$", page.partition("## Roles")[2], re.MULTILINE)
    roles = [Role[cell.strip()] for cell in head.split("|")[1:]]
    assert roles == list(Role)
    told = {}
    for row in rows[: len(Permission)]:
        name, *marks = (cell.strip() for cell in row.split("|"))
        told[Permission[name.strip("`")]] = [mark == "yes" for mark in marks]
    assert list(told) == list(Permission)
    assert told == {
        permission: [permission in permissions_of(role) for role in roles]
        for permission in Permission
    }


def test_who_may_write_a_domain_may_read_it_in_every_role() -> None:
    for role in Role:
        for permission in permissions_of(role):
            read = read_in(permission)
            assert read is None or read in permissions_of(role), (role, permission)


def test_only_owners_and_admins_hand_out_access() -> None:
    assert {role for role in Role if Permission.ACCESS_WRITE in permissions_of(role)} == {
        Role.OWNER,
        Role.ADMIN,
    }


def test_an_analyst_changes_nothing() -> None:
    assert all(permission.name.endswith("_READ") for permission in permissions_of(Role.ANALYST))


def test_reading_and_the_routes_of_machines_are_no_rights_to_write() -> None:
    assert read_in(Permission.BILLING_WRITE) is Permission.BILLING_READ
    for permission in (Permission.BILLING_READ, Permission.INGEST, Permission.CHECK):
        assert read_in(permission) is None

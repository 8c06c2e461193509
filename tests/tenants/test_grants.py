"""Who may give which role: nobody more than he has, and OWNER is an owner's alone."""

import pytest

from aforo.sdk.errors import Invalid
from aforo.tenants.grants import Granter
from aforo.tenants.permissions import EVERY_PERMISSION, Permission, Role, permissions_of

MEMBERS = {role: Granter(permissions_of(role), role) for role in Role}
KEY_OF_EVERYTHING = Granter(EVERY_PERMISSION)


def may_give(granter: Granter) -> set[Role]:
    return {role for role in Role if not refuses(granter.check_may_give, role)}


def may_change(granter: Granter) -> set[Role]:
    return {role for role in Role if not refuses(granter.check_may_change, role)}


def refuses(check: object, role: Role) -> bool:
    try:
        check(role)  # type: ignore[operator]
    except Invalid as error:
        return error.code == "ROLE_NOT_HELD"
    return False


@pytest.mark.parametrize(
    ("granter", "roles"),
    [
        (MEMBERS[Role.OWNER], set(Role)),
        (MEMBERS[Role.ADMIN], set(Role) - {Role.OWNER}),
        (KEY_OF_EVERYTHING, set(Role) - {Role.OWNER}),
        (Granter(frozenset({Permission.ACCESS_READ, Permission.ACCESS_WRITE})), set()),
    ],
)
def test_who_may_give_a_role_may_also_change_who_has_it(granter: Granter, roles: set[Role]) -> None:
    assert may_give(granter) == may_change(granter) == roles


@pytest.mark.parametrize("granter", MEMBERS.values(), ids=lambda each: each.role.name)
def test_nobody_gives_a_role_that_may_do_more_than_himself(granter: Granter) -> None:
    for role in may_give(granter):
        assert permissions_of(role) <= granter.permissions

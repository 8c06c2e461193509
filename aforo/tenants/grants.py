"""Who may give which role to whom."""

from dataclasses import dataclass

from aforo.sdk.errors import Invalid
from aforo.tenants.permissions import Permission, Role, permissions_of


@dataclass(frozen=True, slots=True)
class Granter:
    """Whoever invites members or changes roles: a member, or an API key, which has no role."""

    permissions: frozenset[Permission]
    role: Role | None = None

    def check_may_give(self, role: Role, *, field: str = "role") -> None:
        """Raise `Invalid` where the role may do more than the granter himself, or is OWNER and he
        is none: else whoever writes members could make himself everything."""
        if role is Role.OWNER and self.role is not Role.OWNER:
            raise Invalid(
                "only an owner makes another member an owner", code="ROLE_NOT_HELD", field=field
            )
        lacking = permissions_of(role) - self.permissions
        if lacking:
            names = " and ".join(sorted(each.name for each in lacking))
            raise Invalid(
                f"{role.name} may do what you may not ({names}): "
                "nobody gives more than he has himself",
                code="ROLE_NOT_HELD",
                field=field,
            )

    def check_may_change(self, role: Role, *, field: str = "memberId") -> None:
        """Raise `Invalid` where a member of this role is above the granter."""
        if role is Role.OWNER and self.role is not Role.OWNER:
            raise Invalid("only an owner changes an owner", code="ROLE_NOT_HELD", field=field)
        if not permissions_of(role) <= self.permissions:
            raise Invalid(
                f"a member who is {role.name} may do more than you, so you cannot change it",
                code="ROLE_NOT_HELD",
                field=field,
            )

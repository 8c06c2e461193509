"""The command `aforo reset-password`: for whoever can sign in no more and has nobody to ask."""

import json
from typing import Annotated

import typer

from aforo.settings import Settings, from_environment


def reset_password(
    email: Annotated[str, typer.Argument(help="The person's e-mail address.")],
    *,
    without_codes: Annotated[
        bool, typer.Option("--without-codes", help="The device that shows codes is lost too.")
    ] = False,
) -> None:
    """Print a token with which a person takes a new password, at POST /auth/password/reset."""
    from aforo import process

    settings = from_environment()
    process.run(lambda: _reset_password(settings, email, without_codes=without_codes))


async def _reset_password(settings: Settings, email: str, *, without_codes: bool) -> None:
    from aforo.storage.readiness import ready_runtime
    from aforo.tenants.resets import reset_by_operator

    async with ready_runtime(settings) as runtime:
        token = await reset_by_operator(runtime, email=email, removes_second_factor=without_codes)
    print(json.dumps({"token": token}, indent=2))

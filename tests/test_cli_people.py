"""The commands about people: the first owner's invitation, and a token for a lost password."""

import json

import pytest

from aforo import cli, cli_people
from aforo.sdk.errors import NotFound
from aforo.storage.scope import Runtime
from tests.api.people import PASSWORD, browser

pytestmark = pytest.mark.anyio


async def test_the_first_owner_is_asked_in_and_helped_to_a_new_password(
    runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, email = runtime.settings, "first.owner@cli.example"
    await cli._create_tenant(settings, "By command", test=False, owner=email)
    shown = json.loads(capsys.readouterr().out)
    assert shown["apiKey"].startswith("afo_live_")
    async with browser(runtime) as opened:
        accepting = {"token": shown["invitation"], "name": "First", "password": PASSWORD}
        accepted = await opened.post("/auth/invitation", **accepting)
        assert accepted.json()["member"]["role"] == "OWNER"
        capsys.readouterr()  # The log.
        await cli_people._reset_password(settings, email, without_codes=False)
        token = json.loads(capsys.readouterr().out)["token"]
        new = {"token": token, "password": "another password"}
        assert (await opened.post("/auth/password/reset", **new)).status_code == 204
    with pytest.raises(NotFound):
        await cli_people._reset_password(settings, f"x{email}", without_codes=False)

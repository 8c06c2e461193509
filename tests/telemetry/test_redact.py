"""No secret reaches the log, wherever it came from."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.telemetry.redact import hide, redacted
from aforo.tenants.keys import make_token
from aforo.tenants.models import Environment

TOKEN = str(make_token(Environment.LIVE))

# what is said | what is written
SAID = {
    f"refused {TOKEN} again": f"refused {TOKEN.rsplit('_', 2)[0]}_[hidden] again",
    "Authorization: Bearer hunter2": "Authorization: Bearer [hidden]",
    "{'authorization': 'Basic hunter2=='}": "{'authorization': 'Basic [hidden]'}",
    "header bearer abc.def": "header bearer [hidden]",
    "postgresql+asyncpg://aforo:hunter2@db:5432/aforo": (
        "postgresql+asyncpg://aforo:[hidden]@db:5432/aforo"
    ),
    "redis://:hunter2@cache:6379/0": "redis://:[hidden]@cache:6379/0",
    "{'password': 'hunter2', 'name': 'Ada'}": "{'password': '[hidden]', 'name': 'Ada'}",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw": "whsec_[hidden]",
    "a customer's sk_live_abcdefgh12345": "a customer's sk_[hidden]",
    "token=abc&next=1": "token=[hidden]&next=1",
    "the token was refused; give another": "the token was refused; give another",
    "https://aforo.test/docs?page=2": "https://aforo.test/docs?page=2",
}


@pytest.mark.parametrize(("said", "written"), SAID.items(), ids=map(str, range(len(SAID))))
def test_what_looks_like_a_secret_is_hidden(said: str, written: str) -> None:
    assert hide(said) == written
    for secret in ("hunter2", "MfKQ9r8GKY", TOKEN.rsplit("_", 2)[1], "abcdefgh"):
        assert secret not in hide(said)


@given(st.text(max_size=20), st.sampled_from(Environment))
def test_no_key_of_ours_survives_in_any_text(around: str, environment: Environment) -> None:
    token = make_token(environment)
    assert token.secret not in hide(f"{around} {token} {around}")


def test_values_of_every_kind_are_looked_through() -> None:
    entry = redacted(None, "info", {"event": "x", "error": ValueError(TOKEN), "many": [TOKEN]})
    assert TOKEN.rsplit("_", 2)[1] not in repr(entry)
    kept = {"event": "x", "count": 5, "many": [1, 2], "none": None}
    assert redacted(None, "info", dict(kept)) == kept


SAY = f"""
import structlog
from aforo import process
process.log_to_stderr()
structlog.contextvars.bind_contextvars(request_id="r1", tenant_id="t1")
try:
    raise ValueError("{TOKEN}")
except ValueError:
    structlog.get_logger("aforo").exception("failed")
import logging
logging.getLogger("a.library").warning("it said %s", "{TOKEN}")
"""


def test_a_line_of_the_log_has_the_ids_and_no_secret_also_of_a_traceback_or_a_library() -> None:
    said = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, check=True)
    failed, library = map(json.loads, said.stderr.splitlines())
    assert (failed["request_id"], failed["tenant_id"]) == ("r1", "t1")
    assert "ValueError" in failed["exception"]
    assert library["event"].startswith("it said afo_live_")
    assert TOKEN.rsplit("_", 2)[1] not in said.stderr

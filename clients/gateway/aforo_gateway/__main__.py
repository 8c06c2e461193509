"""`python -m aforo_gateway`: the service, set up by the environment."""

import argparse
import os
import sys
from pathlib import Path

import uvicorn

from aforo_gateway.app import Setup, create_app
from aforo_gateway.rules import RulesError, read_rules

SWITCH_SECONDS = 0.0002
"""How soon the thread that sends events gives way to an answer; Python's own 5 ms are felt."""


def main() -> None:
    """Serve until the process is ended. `AFORO_URL` and `AFORO_API_KEY` say where Aforo is."""
    parser = argparse.ArgumentParser(prog="aforo-gateway", description=__doc__)
    parser.add_argument("--rules", type=Path, required=True, help="the file of rules")
    parser.add_argument("--spool", type=Path, required=True, help="a folder that stays")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9191)
    given = parser.parse_args()
    try:
        rules = read_rules(given.rules)
        url, key = os.environ["AFORO_URL"], os.environ["AFORO_API_KEY"]
    except KeyError as error:
        sys.exit(f"set {error.args[0]}")
    except (OSError, RulesError) as error:
        sys.exit(str(error))
    sys.setswitchinterval(SWITCH_SECONDS)
    app = create_app(Setup(url=url, key=key, spool=given.spool), rules)
    uvicorn.run(app, host=given.host, port=given.port, access_log=False, server_header=False)


if __name__ == "__main__":
    main()

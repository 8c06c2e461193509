"""Workers that are not waited for as long as usual once they are frozen.

`python -m tests.scenarios.impatient`: each line on stdin begins a worker in a fork of the process,
so that the imports are paid for once, and may name a fail point; its pid goes to stdout.
"""

import os
import sys

from sqlalchemy.orm import configure_mappers

from aforo import process, worker
from aforo.cli_servers import work
from aforo.metering import leadership
from aforo.settings import from_environment
from aforo.storage import scope, topic

IDLE_SECONDS = 1


def main() -> None:
    """Begin workers until the input ends."""
    leadership.IDLE_SECONDS_MAX = IDLE_SECONDS
    leadership.LIFE_SECONDS = 0.1
    scope.SYSTEM_IDLE_TIMEOUT_MS = IDLE_SECONDS * 1_000
    worker.RETRY_SECONDS = 0.1
    topic.SESSION_SECONDS = 6.0
    configure_mappers()
    settings = from_environment()
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            os.environ["AFORO_FAILPOINT"] = line.strip()
            process.log_to_stderr()
            process.run(lambda: work(settings, ()))
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

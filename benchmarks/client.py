"""A plain HTTP client on the standard library, as any customer of the API could write it."""

import http.client
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self
from urllib.parse import urlsplit

RETRIES_MAX = 20
TIMEOUT_SECONDS = 60


class RequestRefusedError(Exception):
    """The server said no; the message is what it said."""


class Client:
    """One kept-alive connection to an Aforo."""

    def __init__(self, url: str, api_key: str) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        make = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = make(parts.hostname or "127.0.0.1", parts.port, timeout=TIMEOUT_SECONDS)
        self._headers = {
            "Authorization": f"Bearer {api_key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def graphql(self, document: str, **variables: Any) -> dict[str, Any]:
        """The data of a document. Raises: `RequestRefusedError`."""
        answer = self.post("/graphql", {"query": document, "variables": variables})
        if answer.get("errors"):
            raise RequestRefusedError(answer["errors"][0]["message"])
        data: dict[str, Any] = answer["data"]
        return data

    def send(self, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Send a batch of events; the answer to it. Raises: `RequestRefusedError`."""
        return self.post("/v1/events", list(events))

    def post(self, path: str, body: object) -> dict[str, Any]:
        """The answer to a JSON body. Raises: `RequestRefusedError`."""
        encoded = json.dumps(body).encode()
        for _ in range(RETRIES_MAX):
            self._connection.request("POST", path, encoded, self._headers)
            response = self._connection.getresponse()
            text = response.read()
            if response.status not in {429, 503}:
                break
            time.sleep(min(float(response.headers.get("Retry-After", "1")), 5))
        if response.status >= 400:
            raise RequestRefusedError(f"{path} answered {response.status}: {text[:500].decode()}")
        answer: dict[str, Any] = json.loads(text)
        return answer

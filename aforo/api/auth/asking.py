"""The page that asks before a browser is sent to a tenant's identity provider."""

import base64
from hashlib import sha256
from html import escape
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.responses import HTMLResponse, Response

from aforo.tenants.sessions import SignedIn

_STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem}"
    "button{font:inherit;padding:.5rem 1.5rem}"
)
_STYLE_HASH = base64.b64encode(sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    # No `form-action`: browsers hold it against the redirect to the provider too.
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
}


def asking_page(issuer: str, here: SignedIn | None) -> Response:
    """Ask whether to sign in at a provider, and to leave the session of whoever is `here`.

    The form posts to the very address that the page has.
    """
    host = escape(urlsplit(issuer).netloc)
    leaves = ""
    if here is not None:
        leaves = (
            f"<p>You are signed in as <b>{escape(here.member.email)}</b> of "
            f"<b>{escape(here.tenant.name)}</b>; this browser goes on as whoever signs in.</p>"
        )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sign in</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>Sign in at {host}?</h1>"
        f"<p><b>{host}</b> says who you are, and in whose account you work from then on. Go on "
        "only if it is your own company's.</p>"
        f'{leaves}<form method="post"><button>Go on</button></form></body></html>'
    )
    return HTMLResponse(page, HTTPStatus.OK, headers=_HEADERS)

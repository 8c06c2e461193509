"""E-mail addresses and domains: one form each, and nothing that only looks alike."""

import pytest

from aforo.sdk.errors import Invalid
from aforo.tenants.addresses import domain_of, email_of


@pytest.mark.parametrize(
    ("text", "email"),
    [
        ("ann@example.com", "ann@example.com"),
        ("  Ann.Lee+Aforo@Example.COM\n", "ann.lee+aforo@example.com"),
        ("o'neil@a-b.example", "o'neil@a-b.example"),
        ("x@xn--mnchen-3ya.example", "x@xn--mnchen-3ya.example"),
    ],
)
def test_an_address_has_one_form(text: str, email: str) -> None:
    assert email_of(text) == email


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ann",
        "ann@",
        "@example.com",
        "ann@localhost",
        "ann@example..com",
        "ann@-example.com",
        "ann@b@example.com",
        "ann lee@example.com",
        "ann@exam\u0440le.com",  # A Cyrillic letter.
        "\u0430nn@example.com",
        "\u017fam@example.com",  # A long s, which in small letters would be an s.
        f"{'a' * 65}@example.com",
        f"a@{'b' * 250}.com",
        "a@b.c" * 100_000,
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        email_of(text)


def test_a_domain_has_one_form() -> None:
    assert domain_of(" Example.COM. ", field="x") == "example.com"
    for text in ("", "com", "*.example.com", "a b.com", "ann@example.com"):
        with pytest.raises(Invalid) as refused:
            domain_of(text, field="domains.0")
        assert refused.value.field == "domains.0"

"""Which URLs and addresses may be called: every known way round a deny list, by table."""

from ipaddress import ip_address

import pytest

from aforo.storage.addresses import UrlNotAllowed, Walls, is_loopback, is_public

WALLS = Walls()
DEVELOPMENT = Walls(allow_loopback=True)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200"),
        *("127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.169.254", "169.254.170.2"),
        *("172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1"),
        *("192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.7"),
        *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "::ffff:0:1.1.1.1"),
        *("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "fc00::1"),
        *("fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "5f00::1"),
        *("2001::1", "2001:0:7f00:1::", "2001:10::1", "2001:20::1", "2001:db8::1"),
        *("2002:7f00:1::", "2002:a9fe:a9fe::", "2620:4f:8000::1", "3fff::1", "4000::1"),
        *("2606:4700::5efe:7f00:1", "2606:4700::200:5efe:7f00:1"),
    ],
)
def test_an_address_that_is_not_everybodys_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "93.184.216.34", "100.63.255.255"),
        *("100.128.0.0", "126.255.255.255", "128.0.0.1", "168.63.129.15", "168.63.129.17"),
        *("169.253.255.255", "172.15.255.255", "172.32.0.0", "192.0.1.1", "192.167.255.255"),
        *("198.17.255.255", "198.20.0.0", "223.255.255.255"),
        *("2001:200::1", "2001:4860:4860::8888", "2606:4700:4700::1111", "2a00:1450::1"),
    ],
)
def test_the_addresses_beside_them_are_public(address: str) -> None:
    assert is_public(ip_address(address))


def test_loopback_is_only_what_is_loopback_as_such() -> None:
    own = ["127.0.0.1", "127.9.9.9", "::1"]
    wrapped = ["::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "0.0.0.0"]
    assert [one for one in own + wrapped if is_loopback(ip_address(one))] == own


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://example.com", "example.com", 443, "/", "example.com"),
        ("https://EXAMPLE.com/Hook?a=b", "example.com", 443, "/Hook?a=b", "example.com"),
        ("http://example.com:443/", "example.com", 443, "/", "example.com:443"),
        ("https://example.com:443/", "example.com", 443, "/", "example.com"),
        ("https://example.com:80/", "example.com", 80, "/", "example.com:80"),
        ("https://a-b.xn--bcher-kva.example/", "a-b.xn--bcher-kva.example", 443, "/", None),
        ("https://example.com?x=1", "example.com", 443, "/?x=1", "example.com"),
        ("https://1.1.1.1/", "1.1.1.1", 443, "/", "1.1.1.1"),
        ("https://[2606:4700::1]/", "2606:4700::1", 443, "/", "[2606:4700::1]"),
        ("https://web1/", "web1", 443, "/", "web1"),
    ],
)
def test_a_url_is_taken_apart(
    url: str, host: str, port: int, path: str, authority: str | None
) -> None:
    target = WALLS.target(url)
    assert (target.host, target.port, target.path) == (host, port, path)
    assert target.authority == (authority or host)
    assert WALLS.target(target.url) == target


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.com", "//example.com", "ftp://example.com", "file:///etc/passwd"),
        *("gopher://example.com", "javascript:alert(1)", "https://", "https:///x"),
        *("https://user@example.com", "https://a:b@example.com", "https://@example.com"),
        *("https://example.com@127.0.0.1", "https://127.0.0.1#@example.com"),
        *("https://example.com\\@127.0.0.1", "https://example.com /", "https://exa\tmple.com"),
        *("https://example.com/\r\nHost: x", "https://example.com/\x00", "https://bücher.example"),
        *("https://example.com:99999", "https://example.com:-1", "https://example.com:8080"),
        *("https://example.com:22", "https://example.com/#part", "https://ex%61mple.com"),
        *("https://[::1", "https://::1/", "https://[example.com]/", "https://[fe80::1%25eth0]/"),
        *("http://2130706433/", "http://017700000001/", "http://0177.0.0.1/", "http://0x7f000001/"),
        *("http://0x7f.0.0.1/", "http://127.1/", "http://127.0.1/", "http://1.1.1.1./"),
        *("http://0/", "http://0x/", "http://foo.0x7f/", "http://foo.127/", "http://00.0.0.0/"),
        *("http://127.0.0.1/", "http://10.0.0.1/", "http://169.254.169.254/latest/meta-data"),
        *("http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/"),
        *("http://[64:ff9b::a9fe:a9fe]/", "http://[2002:a9fe:a9fe::]/", "http://1.1.1.1:8080/"),
        *("http://[::]/", "http://0.0.0.0/", "https://-/..", f"https://{'a' * 64}.example/"),
        f"https://example.com/{'x' * 2048}",
    ],
)
def test_a_url_that_hides_something_is_refused(url: str) -> None:
    with pytest.raises(UrlNotAllowed) as told:
        WALLS.target(url, field="url")
    assert (told.value.code, told.value.field) == ("URL_NOT_ALLOWED", "url")


def test_the_development_switch_opens_loopback_on_any_port_and_nothing_else() -> None:
    for url in ("http://127.0.0.1:9000/", "http://[::1]:9000/", "http://localhost:9000/"):
        DEVELOPMENT.target(url)
        with pytest.raises(UrlNotAllowed):
            WALLS.target(url)
    for url in ("http://10.0.0.1/", "http://[::ffff:127.0.0.1]:9000/", "http://1.1.1.1:9000/"):
        with pytest.raises(UrlNotAllowed):
            DEVELOPMENT.target(url)
    assert not DEVELOPMENT.allows(ip_address("1.1.1.1"), 9000)
    assert DEVELOPMENT.allows(ip_address("127.0.0.1"), 9000)


def test_in_production_only_https_is_called() -> None:
    walls = Walls(production=True)
    walls.target("https://example.com/")
    with pytest.raises(UrlNotAllowed, match="https://"):
        walls.target("http://example.com/")

"""The proxy of a request, and the exceptions that the environment lists."""

from __future__ import annotations

import pytest

from lm_deluge.api_requests.credentials import find_proxy
from lm_deluge.config import Secret
from lm_deluge.errors import ConfigurationError


@pytest.fixture(autouse=True)
def no_proxy_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def proxy_of(url: str, explicit: str | None = None) -> str | None:
    proxy = find_proxy(url, None if explicit is None else Secret(explicit))
    return None if proxy is None else proxy.reveal()


def test_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_of("https://h/") is None
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    monkeypatch.setenv("HTTP_PROXY", "p:2")
    monkeypatch.setenv("NO_PROXY", "inner.test,.corp")
    assert proxy_of("https://h/") == "http://p:1"
    assert proxy_of("http://h/") == "http://p:2"
    assert proxy_of("https://inner.test/") is None
    assert proxy_of("https://a.corp/") is None
    assert proxy_of("https://inner.test/", "http://own:3") == "http://own:3"


@pytest.mark.parametrize("proxy", ["", "canary", "socks5://canary:1", "http://:1", "http://canary:x", "http://["])
def test_what_is_no_proxy_is_refused_without_being_shown(proxy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        proxy_of("https://h/", proxy)
    assert "canary" not in str(caught.value)


def test_all_proxy_is_for_every_scheme_without_a_proxy_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://p:1")
    assert proxy_of("https://h/") == proxy_of("http://h/") == "http://p:1"
    monkeypatch.setenv("https_proxy", "http://p:2")
    assert proxy_of("https://h/") == "http://p:2"
    monkeypatch.setenv("ALL_PROXY", "socks5://p:1")
    with pytest.raises(ConfigurationError, match="not an HTTP proxy"):
        proxy_of("http://h/")


@pytest.mark.parametrize(
    ("listed", "url", "is_direct"),
    [
        ("10.0.0.0/8", "http://10.20.30.40:8000/v1", True),
        ("10.0.0.0/8", "http://11.0.0.1/v1", False),
        ("10.0.0.0/8", "http://ten.test/v1", False),
        ("10.0.0.1", "http://10.0.0.1/v1", True),
        ("fd00::/8", "http://[fd12::1]:8000/v1", True),
        ("[fd12::1]:8000", "http://[fd12::1]:8000/v1", True),
        ("[fd12::1]:8001", "http://[fd12::1]:8000/v1", False),
        ("fd12::1", "http://[fd12::1]/v1", True),
        ("gpu.test:8000", "http://gpu.test:8000/v1", True),
        ("gpu.test:8000", "http://gpu.test:8001/v1", False),
        ("gpu.test:443", "https://gpu.test/v1", True),
        ("gpu.test:80", "https://gpu.test/v1", False),
        ("10.0.0.1:8000", "http://10.0.0.1:8000/v1", True),
        ("corp", "http://gpu.corp/v1", True),
        (".corp", "http://gpu.corp/v1", True),
        ("*.corp", "http://gpu.corp/v1", True),
        ("corp", "http://gpucorp/v1", False),
        ("GPU.test", "http://gpu.TEST/v1", True),
        ("a.test, 192.168.0.0/16 ,b.test", "http://192.168.7.7/v1", True),
        ("*", "https://h/", True),
        ("", "https://h/", False),
        ("nonsense/33, 10.0.0.0/99, [::1, :", "http://10.0.0.1/v1", False),
    ],
)
def test_no_proxy_lists_names_addresses_networks_and_ports(
    listed: str, url: str, is_direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://p:1")
    monkeypatch.setenv("NO_PROXY", listed)
    assert proxy_of(url) == (None if is_direct else "http://p:1")

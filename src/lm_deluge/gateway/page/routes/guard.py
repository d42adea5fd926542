"""Headers of all responses of the page, and the checks that keep pages of other sites away from its API."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from lm_deluge.errors import BadRequestError, PermissionDeniedError

__all__ = ["FILE_HEADERS", "PAGE_HEADERS", "REPORTS_PATH", "check_origin", "check_type"]

REPORTS_PATH = "/page/api/csp-reports"

# Everything is loaded from this server. Scripts reach the HTML only through policies of Trusted Types, and the one that
# makes HTML of the text of models sanitises it. https://w3c.github.io/trusted-types/dist/spec/
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify deluge",
        f"report-uri {REPORTS_PATH}",
    )
)

PAGE_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",  # `frame-ancestors` for browsers that do not know it
    "cross-origin-resource-policy": "same-origin",  # no page of another site shows a file by its address
    "cross-origin-opener-policy": "same-origin",
}

FILE_HEADERS = {**PAGE_HEADERS, "content-security-policy": "sandbox; default-src 'none'; frame-ancestors 'none'"}
"""Of files that users have sent, which may be anything: nothing in them runs, if a browser opens one by its address."""

_READING = ("GET", "HEAD")


def check_origin(method: str, headers: Mapping[str, str]) -> None:
    """Check that a request comes from the page itself, or from a program that is no browser.

    A cookie with `SameSite=Strict` is sent by pages of another port of the same host, too, and without keys there is
    none. Browsers write both headers, and no page can change them: https://w3c.github.io/webappsec-fetch-metadata/

    Raises:
        PermissionDeniedError: It comes from a page of another origin.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        # "none": typed into the address bar, or a bookmark. Such a request only reads.
        is_own = site == "same-origin" or (site == "none" and method in _READING)
    else:
        origin = headers.get("origin")
        is_own = origin is None or urlsplit(origin).netloc == headers.get("host")
    if not is_own:
        raise PermissionDeniedError("pages of other sites may not use this server", status_code=403)


def check_type(headers: Mapping[str, str]) -> None:
    """Check that a body is declared as JSON, which a form of another site cannot send.

    Raises:
        BadRequestError: It is not.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise BadRequestError("the content-type must be application/json", status_code=415)

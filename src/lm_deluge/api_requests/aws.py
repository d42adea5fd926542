"""AWS signatures (SigV4), made by botocore: the only file that imports botocore.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

from __future__ import annotations

import asyncio
import re
import threading
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from lm_deluge.adapters.adapter import Call
from lm_deluge.api_requests.credentials import aws_environment, find_place, is_row_url
from lm_deluge.errors import MissingAPIKeyError, MissingExtraError
from lm_deluge.extras import install_hint
from lm_deluge.wire.http import HttpRequest

try:
    from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
    from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
    from botocore.credentials import RefreshableCredentials  # type: ignore[import-untyped]
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
    from botocore.session import Session  # type: ignore[import-untyped]
except ImportError as missing:
    raise MissingExtraError(
        "requests to AWS are signed with botocore, which is not installed",
        hint=install_hint("botocore", otherwise="set AWS_BEARER_TOKEN_BEDROCK to an API key of Bedrock"),
    ) from missing

__all__ = ["sign"]

_REGION = re.compile(r"\.([a-z]{2}(?:-[a-z]+)+-[0-9]+)\.")
# Only these headers are signed: a proxy may add, drop or rewrite the others on the way.
_SIGNED = re.compile(r"content-type|x-amz.*")

_lock = threading.Lock()
_found: dict[int, Any] = {}
"""Credentials by the hash of the environment; only those of the present environment are kept."""


async def sign(request: HttpRequest, call: Call) -> dict[str, str]:
    """Return the headers that sign a request with the credentials of AWS's own chain.

    botocore looks at environment variables, profiles, SSO, roles and the identity of the machine; reading files and
    asking the network happens in a thread.

    Raises:
        MissingAPIKeyError: There are no credentials, and the request goes to AWS itself.
    """
    environment = aws_environment()
    credentials = _found.get(environment)
    if credentials is None or _must_wait(credentials):
        credentials, frozen = await asyncio.to_thread(_find, environment, call)
    else:
        frozen = credentials.get_frozen_credentials()
    if frozen is not None:
        return _headers(request, call, frozen)
    if not is_row_url(call.provider, call.base_url):
        return {}
    raise _missing(call, "there are no AWS credentials")


def _must_wait(credentials: Any) -> bool:
    return isinstance(credentials, RefreshableCredentials) and bool(credentials.refresh_needed())


def _find(environment: int, call: Call) -> tuple[Any, Any]:
    """Return the credentials and a frozen copy; concurrent callers wait for the first one's result."""
    with _lock:
        try:
            credentials = _found.get(environment) or Session().get_credentials()
            frozen = None if credentials is None else credentials.get_frozen_credentials()
        except BotoCoreError as error:
            # The message of the error may quote the output of a credential program.
            name = type(error).__name__
            raise _missing(call, f"the AWS credentials cannot be loaded: {name}") from error.with_traceback(None)
        if credentials is not None:
            _found.clear()
            _found[environment] = credentials
    return credentials, frozen


def _missing(call: Call, message: str) -> MissingAPIKeyError:
    return MissingAPIKeyError(
        message,
        provider=call.provider.id,
        model=call.model.id,
        hint=f"Set {' or '.join(call.provider.key_env)}, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
        "AWS_PROFILE, or run `aws sso login`.",
    )


def _headers(request: HttpRequest, call: Call, frozen: Any) -> dict[str, str]:
    headers = {name: value for name, value in request.headers.items() if _SIGNED.fullmatch(name)}
    signed = AWSRequest(method=request.method, url=request.url, data=request.body, headers=headers)
    signer = SigV4Auth(frozen, call.provider.signs_for, _region(call))
    # The steps of `SigV4Auth.add_auth`, which writes the signature and the session token to the log.
    signed.context["timestamp"] = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    signer._modify_request_before_signing(signed)  # noqa: SLF001 - see above (botocore 1.44, 2026-11)
    canonical = signer.canonical_request(signed)
    signature = signer.signature(signer.string_to_sign(signed, canonical), signed)
    signer._inject_signature_to_request(signed, signature)  # noqa: SLF001
    made = {name.lower(): str(value) for name, value in signed.headers.items()}
    return {name: value for name, value in made.items() if name not in headers}


def _region(call: Call) -> str:
    """Return the region in the host name, else the one of the environment."""
    found = _REGION.search(urlsplit(call.base_url).hostname or "")
    return found.group(1) if found else find_place(call.provider, "region")

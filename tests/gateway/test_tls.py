"""HTTPS with a certificate and a key from files, and files that cannot be used."""

import shutil
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from gateway.test_serve import BODY, TEXT, serving
from installed import need
from lm_deluge.errors import ConfigurationError
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.gateway.serve import check_tls
from lm_deluge.simulator import Simulator

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def openssl(folder: Path, *arguments: str) -> None:
    program = shutil.which("openssl")
    need("openssl", found=program is not None, how="install OpenSSL's command")
    subprocess.run((program, *arguments), check=True, capture_output=True, cwd=folder, timeout=30)  # noqa: S603


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two certificates and their keys, one key with a password, and files that are neither."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("own", "other"):
        subject = ("-subj", "/CN=gateway", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
        openssl(folder, "req", "-x509", *EC, "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.crt", *subject)
    openssl(folder, "ec", "-in", "own.key", "-aes256", "-passout", "pass:secret", "-out", "locked.key")
    (folder / "empty.pem").write_bytes(b"")
    (folder / "binary.pem").write_bytes(bytes(range(256)))
    return folder


def test_a_client_gets_a_stream_by_https(tmp_path: Path, files: Path) -> None:
    settings = f'[server]\ntls_certificate = "{files / "own.crt"}"\ntls_key = "{files / "own.key"}"\n'
    (tmp_path / "deluge.toml").write_text(settings)
    trusted = ssl.create_default_context(cafile=str(files / "own.crt"))
    with (
        Simulator(TEXT).start_in_thread() as simulator,
        serving(tmp_path, simulator, "--config", "deluge.toml") as (_, url),
    ):
        assert url.startswith("https://127.0.0.1:")
        with (
            httpx.Client(base_url=url, verify=trusted, timeout=30) as client,
            client.stream("POST", "/v1/chat/completions", json=BODY) as answer,
        ):
            assert "".join(answer.iter_text()).endswith("data: [DONE]\n\n")
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            httpx.get(f"{url}/health/live")
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{url.replace('https', 'http')}/health/live")


@pytest.mark.parametrize(
    ("certificate", "key", "problem"),
    [
        ("own.crt", None, "tls_key is not set"),
        (None, "own.key", "tls_certificate is not set"),
        ("missing.crt", "own.key", "missing.crt cannot be read: No such file"),
        ("own.crt", "missing.key", "missing.key cannot be read: No such file"),
        (".", "own.key", "cannot be read: Is a directory"),
        ("own.crt", "other.key", "cannot be used for HTTPS"),
        ("own.key", "own.crt", "cannot be used for HTTPS"),
        ("own.crt", "locked.key", "cannot be used for HTTPS"),
        ("empty.pem", "own.key", "cannot be used for HTTPS"),
        ("own.crt", "binary.pem", "cannot be used for HTTPS"),
    ],
)
def test_files_that_cannot_be_used(files: Path, certificate: str | None, key: str | None, problem: str) -> None:
    settings = GatewaySettings(
        tls_certificate=certificate and str(files / certificate), tls_key=key and str(files / key)
    )
    with pytest.raises(ConfigurationError, match=problem):
        check_tls(settings)


def test_without_files_there_is_nothing_to_check() -> None:
    check_tls(GatewaySettings())

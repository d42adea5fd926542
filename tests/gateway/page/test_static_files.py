"""The static files of the page: types, caching, policies, and no way to any other file."""

import re
from pathlib import Path

import httpx
import pytest

from gateway.page.chat_page import PageClient, assets
from gateway.serving import Serving, serve
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.gateway.page.page import open_page
from lm_deluge.gateway.page.routes.static_files import StaticFiles, packaged_assets
from lm_deluge.simulator import Simulator

HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def test_the_page_and_its_files(page: PageClient) -> None:
    index = await page.http.get("/", headers=HTML)
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    assert index.headers["cache-control"] == "no-cache"
    (script,) = re.findall(r'src="([^"]+)"', index.text)
    assert re.fullmatch(r"/page/assets/[0-9a-f]{16}/scripts/app\.js", script)
    for url, kind in ((script, "text/javascript"), (script.replace("app.js", "part.js"), "text/javascript")):
        found = await page.http.get(url)
        assert found.headers["content-type"] == f"{kind}; charset=utf-8"
        assert found.headers["cache-control"] == "public, max-age=31536000, immutable"
    plain = await page.http.get("/page/assets/style.css")
    assert (plain.headers["content-type"], plain.headers["cache-control"]) == ("text/css; charset=utf-8", "no-cache")
    for known in (plain.headers["etag"], f'"x", W/{plain.headers["etag"]}'):
        unchanged = await page.http.get("/page/assets/style.css", headers={"if-none-match": known})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert (await page.http.get("/page/assets/style.css", headers={"if-none-match": '"x"'})).status_code == 200


async def test_a_program_that_looks_for_the_server_gets_text(page: PageClient) -> None:
    assert (await page.http.get("/")).text == "LM Deluge is running"
    assert (await page.http.head("/")).status_code == 200


async def test_a_gateway_without_the_page(serving: Serving) -> None:
    async with httpx.AsyncClient(base_url=serving.url) as client:
        assert (await client.get("/", headers=HTML)).text == "LM Deluge is running"
        assert (await client.get("/page/api/session")).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/page/assets/",
        "/page/assets/absent.js",
        "/page/assets/../page.py",
        "/page/assets/..%2fpage.py",
        "/page/assets/%2e%2e/%2e%2e/serve.py",
        "/page/assets//etc/passwd",
        "/page/assets/%2fetc%2fpasswd",
        "/page/assets/scripts",
        "/page/assets/scripts/",
        "/page/assets/scripts%5capp.js",
        "/page/assets/style.css%00.js",
        "/page/assets/0123456789abcdef/style.css",
        "/page/page.db",
        "/page/",
        "/page/api/",
    ],
)
async def test_nothing_else_is_reachable(page: PageClient, tmp_path: Path, path: str) -> None:
    target = httpx.URL(str(page.http.base_url).rstrip("/")).copy_with(raw_path=path.encode())
    found = await page.http.get(target)
    assert found.status_code == 404


async def test_every_response_has_the_policies(page: PageClient) -> None:
    conversation = await page.conversation()
    answer = await page.answered(conversation)
    paths = (
        *("/", "/page/assets/style.css", "/page/assets/absent", "/page/api/session", "/page/api/models"),
        *(f"/page/api/conversations/{conversation}", "/page/api/conversations/x"),
        f"/page/api/answers/{answer['id']}/events",
    )
    for path in paths:
        headers = (await page.http.get(path, headers=HTML)).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"), path
        assert "require-trusted-types-for 'script'; trusted-types " in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    for path in ("/page/api/session", f"/page/api/conversations/{conversation}"):
        assert (await page.http.get(path)).headers["cache-control"] == "no-store"


def test_a_new_version_has_new_urls(tmp_path: Path) -> None:
    folder = assets(tmp_path)
    first = StaticFiles(folder).version
    assert StaticFiles(folder).version == first
    (folder / "scripts" / "part.js").write_text("export { };")
    assert StaticFiles(folder).version != first


def test_files_of_other_kinds_are_not_served(tmp_path: Path) -> None:
    folder = assets(tmp_path)
    first = StaticFiles(folder).version
    (folder / "notes.py").write_text("secret")
    (folder / ".hidden").write_text("secret")
    assert StaticFiles(folder).version == first


async def test_every_file_of_the_package_is_served(simulator: Simulator, tmp_path: Path) -> None:
    folder = Path(str(packaged_assets()))
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]  # noqa: ASYNC240
    async with (
        open_page(f"sqlite:///{tmp_path / 'page.db'}") as page,
        serve(GatewaySettings(), simulator, page=page) as it,
        httpx.AsyncClient(base_url=it.url) as client,
    ):
        for name in files:
            assert (await client.get(f"/page/assets/{name}")).status_code == 200, name
        index = (await client.get("/", headers=HTML)).text
        for url in re.findall(r'(?:src|href)="(/[^"]+)"', index):
            assert (await client.get(url)).headers["cache-control"].endswith("immutable"), url

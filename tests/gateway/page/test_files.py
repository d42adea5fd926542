"""Files of the page: limits, kinds by content, and how they reach a model."""

import base64
from pathlib import Path

import pytest

from gateway.page.chat_page import PageClient, chat_page
from lm_deluge.gateway.page.store import files

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 32


async def send(page: PageClient, data: bytes, name: str = "a.txt", media_type: str = "text/plain") -> dict[str, str]:
    headers = {"x-file-name": name, "content-type": media_type}
    answer = await page.http.post("/page/api/files", content=data, headers=headers)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_an_image_and_a_text_reach_the_model(page: PageClient) -> None:
    image = await send(page, PNG, "caf%C3%A9.png", "image/png")
    assert (image["name"], image["media_type"], image["size"]) == ("café.png", "image/png", 40)
    notes = await send(page, b"line one", "../../notes.txt")
    assert notes["name"] == "notes.txt"
    conversation = await page.conversation()
    sent = ({"file_id": image["file_id"], "type": "image"}, {"file_id": notes["file_id"]})
    answer = await page.answered(conversation, "Look", files=sent)
    parts = page.simulator.requests[0].json["messages"][0]["content"]
    assert parts[1]["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert "line one" in str(parts[2])
    question = await page.message(conversation, answer["parent"])
    shown = {"type": "image", "file_id": image["file_id"], "name": "café.png", "media_type": "image/png"}
    assert question["parts"][1] == shown
    await page.answered(conversation, "Again", parent=answer["id"])
    assert page.simulator.requests[1].json["messages"][0] == page.simulator.requests[0].json["messages"][0]


async def test_only_images_are_shown_and_nothing_runs(page: PageClient) -> None:
    image = await send(page, PNG, "a.png", "text/html")
    shown = await page.http.get(f"/page/api/files/{image['file_id']}")
    assert (shown.headers["content-type"], shown.content) == ("image/png", PNG)
    for data, media_type in ((b"<script>1</script>", "text/html"), (b"<svg onload=alert(1)>", "image/svg+xml")):
        file = await send(page, data, "x.html", media_type)
        assert not file["media_type"].startswith("image/")
        found = await page.http.get(f"/page/api/files/{file['file_id']}")
        assert found.headers["content-type"] == "application/octet-stream"
        assert found.headers["content-disposition"].startswith("attachment")
        assert found.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.content == data


async def test_limits_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MOST_OF_OWNER", 1000)
    async with chat_page(tmp_path, monkeypatch, max_body_bytes=600) as page:
        headers = {"x-file-name": "a", "content-type": "text/plain"}
        for data, status in ((b"x" * 601, 413), (b"", 400), (b"x" * 600, 201), (b"x" * 500, 413), (b"x" * 400, 201)):
            answer = await page.http.post("/page/api/files", content=data, headers=headers)
            assert answer.status_code == status, len(data)
        del headers["x-file-name"]
        assert (await page.http.post("/page/api/files", content=b"x", headers=headers)).status_code == 400
        await page.json("GET", f"files/{'0' * 32}", status=404)


async def test_files_go_with_their_conversation_and_unused_ones_after_a_day(
    page: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, unused = await send(page, b"used"), await send(page, b"unused")
    conversation, other = await page.conversation(), await page.conversation()
    await page.answered(conversation, files=({"file_id": used["file_id"]},))
    refused = await page.ask(other, files=({"file_id": used["file_id"]},), status=400)
    assert "another conversation" in refused["error"]["message"]
    assert (await page.json("GET", f"conversations/{other}"))["messages"] == []
    monkeypatch.setattr(files, "_UNUSED_S", -1.0)
    await send(page, b"next")
    await page.json("GET", f"files/{unused['file_id']}", status=404)
    assert (await page.http.get(f"/page/api/files/{used['file_id']}")).content == b"used"
    await page.json("DELETE", f"conversations/{conversation}", status=204)
    await page.json("GET", f"files/{used['file_id']}", status=404)

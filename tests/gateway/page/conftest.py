"""The chat page of a gateway without keys."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.page.chat_page import PageClient, chat_page


@pytest.fixture
async def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PageClient]:
    async with chat_page(tmp_path, monkeypatch) as client:
        yield client

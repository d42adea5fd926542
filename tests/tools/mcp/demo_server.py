"""An MCP server for tests: in this process, or as a program (`python demo_server.py stdio|http`)."""

from __future__ import annotations

import asyncio
import base64
import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import AudioContent, BlobResourceContents, EmbeddedResource, TextContent, TextResourceContents
from pydantic import BaseModel

PNG = b"\x89PNG\r\n\x1a\n rest"


class Weather(BaseModel):
    city: str
    degrees: float


def make_server() -> MCPServer:  # noqa: C901 - one function for each kind of tool
    server = MCPServer("demo", log_level="CRITICAL")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool(name="dotted.name")
    def dotted() -> str:
        return "dotted"

    @server.tool()
    def weather(city: str) -> Weather:
        return Weather(city=city, degrees=21.5)

    @server.tool()
    async def steps(ctx: Context, count: int = 2) -> str:
        for each in range(count):
            await ctx.report_progress(each, count, f"step {each}")
        return "done"

    @server.tool()
    async def forever(mark: str = "") -> str:
        try:
            await asyncio.Event().wait()
        finally:
            if mark:
                Path(mark).write_text("cancelled")  # noqa: ASYNC240
        return ""

    @server.tool(structured_output=False)
    def media() -> list[Any]:
        png = base64.b64encode(PNG).decode()
        return [
            TextContent(type="text", text="see:"),
            Image(data=PNG, format="png"),
            AudioContent(type="audio", data=base64.b64encode(b"ID3").decode(), mime_type="audio/mpeg"),
            EmbeddedResource(type="resource", resource=TextResourceContents(uri="file:///a.txt", text="inside")),
            EmbeddedResource(
                type="resource", resource=BlobResourceContents(uri="file:///b/c.png", blob=png, mime_type="image/png")
            ),
        ]

    @server.tool()
    def fail(text: str) -> str:
        raise ToolError(text)

    @server.tool()
    async def grow(ctx: Context) -> str:
        def extra() -> str:
            return "extra"

        server.add_tool(extra)
        await ctx.notify_tools_changed()  # clients of protocol 2026-07-28
        await ctx.session.send_tool_list_changed()  # older ones
        return "grown"

    return server


def main(kind: str) -> None:
    if kind == "http":
        make_server().run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
        return
    make_server().run()


if __name__ == "__main__":
    main(sys.argv[1])

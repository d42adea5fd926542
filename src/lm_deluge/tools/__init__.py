"""Tools that run in the program: functions, models and MCP servers."""

from lm_deluge.prompt.tool import ToolReturn
from lm_deluge.tools.mcp.server import MCPServer, ServerProgress
from lm_deluge.tools.runner import ToolOutcome, ToolRunner

__all__ = ["MCPServer", "ServerProgress", "ToolOutcome", "ToolReturn", "ToolRunner"]

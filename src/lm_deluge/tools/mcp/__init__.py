"""Tools of MCP servers, through the official SDK, which is imported on first use."""

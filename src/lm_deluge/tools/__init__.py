"""Tools that run in the program: functions, models and MCP servers."""

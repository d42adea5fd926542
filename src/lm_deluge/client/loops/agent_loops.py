"""What the agent loops of one call, or of all rows of a batch, have in common: the tools, and the plans of rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lm_deluge.client.call_options import CallOptions, Tools
from lm_deluge.errors import ConfigurationError
from lm_deluge.prompt.tool import ProviderTool, Tool, ToolSource, to_tools
from lm_deluge.tools.runner import ToolRunner, tool_sources

if TYPE_CHECKING:
    from lm_deluge.client.dispatcher import CallPlanner

__all__ = ["AgentLoops", "prepared_tools"]


class AgentLoops:
    """Makes the runners and planners of agent loops with the same options.

    Args:
        options: The options of the loops; their tools are prepared.
        planner: Plans the rounds in which `tool_choice` applies, and the tools are those of the start.
        make_planner: Returns the planner for other options.
        is_forced: Whether `tool_choice` forces a call.

    Attributes:
        options: How the tools run.
        has_servers: Whether some of the tools are those of servers, to which each loop connects.

    Raises:
        ConfigurationError: There are no tools, or one has nothing to run.
    """

    def __init__(
        self,
        options: CallOptions,
        planner: CallPlanner,
        make_planner: Callable[[CallOptions], CallPlanner],
        *,
        is_forced: bool,
    ) -> None:
        self.options = options.loop
        self._call = options
        self._make_planner = make_planner
        self._is_forced = is_forced
        runner = self.runner()
        self.has_servers = any(isinstance(tool, ToolSource) for tool in options.tools or ())
        # The tools of a server are known once it is connected, and can change.
        self._definitions = () if self.has_servers else runner.definitions
        self._planners: dict[bool, CallPlanner] = {}  # by whether `tool_choice` applies
        if not self.has_servers:
            self._planners = {True: planner} if is_forced else {True: planner, False: planner}

    def runner(self) -> ToolRunner:
        """Return a runner of the tools, for one loop."""
        loop = self.options
        return ToolRunner(
            self._call.tools,
            timeout_s=loop.tool_timeout,
            max_result_characters=loop.max_result_characters,
            max_concurrent=loop.max_concurrent_tools,
        )

    def planner(self, tools: tuple[Tool | ProviderTool, ...], *, is_first: bool) -> CallPlanner:
        """Return the planner of a round, for the tools as they are now."""
        if tools != self._definitions:
            self._definitions, self._planners = tools, {}
        planner = self._planners.get(is_first)
        if planner is None:
            options = self._call._replace(tools=tools)
            if self._is_forced and not is_first:
                options = options._replace(sampling={**options.sampling, "tool_choice": None})
            planner = self._planners[is_first] = self._make_planner(options)
        return planner


def prepared_tools(tools: Tools | None) -> list[Any]:
    """Return the tools of a loop with functions and models as `Tool`; servers stay, as their tools can change.

    Raises:
        ConfigurationError: There are none, or one is no tool.
    """
    if not tools:
        raise ConfigurationError("run_tools=True needs tools", hint="Pass functions, for example: tools=[weather].")
    found: list[Any] = []
    for tool in tool_sources(tools):
        found += [tool] if isinstance(tool, ToolSource) else to_tools([tool])
    return found

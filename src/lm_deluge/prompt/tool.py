"""A tool that the model may call."""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import msgspec

from lm_deluge.errors import ConfigurationError, InvalidPromptError
from lm_deluge.prompt.plain_values import to_plain
from lm_deluge.schemas.validity import argument_schema_problem

if TYPE_CHECKING:  # imported on first use: a call without functions needs neither
    from lm_deluge.schemas.schema_type import SchemaType
    from lm_deluge.schemas.signature import Signature

__all__ = ["ProviderTool", "Tool", "ToolReturn", "ToolSource", "ToolTarget", "to_tools"]

# The strictest rule of all supported APIs, OpenAI's: letters, digits, _ and -, at most 64.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TARGET = "_target"


class ToolTarget(Protocol):
    """What a tool runs."""

    @property
    def function(self) -> Callable[..., Any]:
        """The function, sync or async."""
        ...

    def bind(self, arguments: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and keyword arguments of the function for the JSON arguments of a model.

        Raises:
            InvalidValueError: They do not fit.
        """
        ...


class ToolSource(ABC):
    """An object with tools of its own: an MCP server."""

    @property
    @abstractmethod
    def tools(self) -> tuple[Tool, ...]:
        """The tools, as they are now.

        Raises:
            ConfigurationError: The source is not connected.
        """


class ToolReturn(NamedTuple):
    """What a tool returns to have the program and the model get different things.

    Attributes:
        value: The result for the program.
        content: The result for the model: text, or anything else that a tool may return.
    """

    value: Any
    content: Any


# `dict=True`: what a tool runs is kept outside the fields, so that comparisons, the repr, pickles, cache keys and
# requests depend on the description of a tool only.
class Tool(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A tool, described by a JSON schema; `from_function` and `from_model` write the schema.

    A tool may have a function to run. It is no part of the description: tools that differ only in their functions are
    equal, and a pickled tool has none.

    Attributes:
        name: Letters, digits, `_` and `-`, at most 64.
        description: Instructions for the model: the purpose of the tool and when to call it.
        parameters: JSON schema of the arguments, of type `object`.
        strict: Whether the provider enforces the schema on the model's arguments; None: the provider's default. OpenAI
            enforces only schemas without optional properties: there these properties may be null in the arguments.

    Raises:
        InvalidPromptError: The name is not valid, or the schema is not of type `object`.

    Example:
        >>> schema = {"type": "object", "properties": {"city": {"type": "string"}}}
        >>> client.stream("Weather in Rome?", tools=[Tool(name="weather", parameters=schema)])
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InvalidPromptError(f"{self.name!r} is not a valid tool name: 1 to 64 letters, digits, '_' or '-'")
        if not isinstance(self.parameters, dict) or self.parameters.get("type", "object") != "object":
            raise InvalidPromptError(f"the parameters of tool {self.name} are not a JSON schema of type object")
        for name in ("name", "description", "parameters"):
            msgspec.structs.force_setattr(self, name, to_plain(getattr(self, name)))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Tool:
        """Build a tool from `{"name", "description", "parameters"}`, or from OpenAI's `{"function": {...}}`.

        Raises:
            InvalidPromptError: The name is missing or not valid, or the schema is not of type `object`.
        """
        inner = data.get("function", data)
        if not isinstance(inner, dict):
            raise InvalidPromptError("the function of a tool is not a mapping")
        known = {name: inner[name] for name in ("name", "description", "parameters", "strict") if name in inner}
        if "name" not in known:
            raise InvalidPromptError("a tool needs a name", hint='Write {"name": ..., "parameters": {...}}.')
        return cls(**known)

    @classmethod
    def from_function(
        cls,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool | None = None,
    ) -> Tool:
        """Build a tool from a function: its type hints, defaults and docstring are the schema.

        Args:
            function: A function, method, partial application or callable object, sync or async. Texts in `Annotated`
                and the docstring's section of parameters (Google, NumPy or Sphinx style) describe the parameters.
            name: By default the function's name.
            description: By default the docstring without its sections.
            strict: Whether the provider enforces the schema; None: the provider's default.

        Raises:
            InvalidPromptError: A parameter has no type hint, or a type without a JSON schema, or is `*args` or
                `**kwargs`; or the name is not valid.

        Example:
            >>> def weather(city: Annotated[str, "name of a city"]) -> dict: ...
            >>> Tool.from_function(weather).name
            'weather'
        """
        from lm_deluge.schemas.signature import function_name, signature_of

        if not callable(function):
            raise InvalidPromptError(f"{type(function).__name__} is not a function")
        if name is None and not _NAME.fullmatch(function_name(function)):
            raise InvalidPromptError(
                f"the function {function_name(function)} has no name that a tool may have", hint="Pass name=."
            )
        target = _FunctionTarget(function, signature_of(function))
        tool = cls(
            name=target.signature.name if name is None else name,
            description=target.signature.description if description is None else description,
            parameters=target.signature.json_schema,
            strict=strict,
        )
        return tool.with_target(target)

    @classmethod
    def from_model(
        cls,
        model: type,
        function: Callable[[Any], Any] | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool | None = None,
    ) -> Tool:
        """Build a tool whose arguments are the fields of a class.

        Args:
            model: A Pydantic model, dataclass, TypedDict or msgspec struct.
            function: Called with the validated object, sync or async. By default the object itself is the result.
            name: By default the class name.
            description: By default the docstring of the class.
            strict: Whether the provider enforces the schema; None: the provider's default.

        Raises:
            InvalidPromptError: The class has no JSON schema, or not one of an object; or the name is not valid.

        Example:
            >>> class Invoice(BaseModel):
            ...     total: float
            >>> Tool.from_model(Invoice).call(total=12.5)
            Invoice(total=12.5)
        """
        from lm_deluge.schemas.schema_type import schema_of

        try:
            schema = schema_of(model)
        except ConfigurationError as error:
            raise InvalidPromptError(error.message, hint=error.hint) from error
        parameters = dict(schema.json_schema)
        if parameters.get("type") != "object":
            raise InvalidPromptError(
                f"the type {schema.name} has no fields that can be arguments of a tool",
                hint="Pass a Pydantic model, a dataclass or a TypedDict.",
            )
        parameters.pop("title", None)
        own = parameters.pop("description", "")
        tool = cls(
            name=schema.name if name is None else name,
            description=own if description is None else description,
            parameters=parameters,
            strict=strict,
        )
        return tool.with_target(_ModelTarget(function or _unchanged, schema))

    @classmethod
    async def from_mcp(
        cls,
        server: Any,
        *,
        command: str | None = None,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        url: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> list[Tool]:
        """Return the tools of an MCP server. Each call connects to the server if it is not connected.

        Args:
            server: An `MCPServer`, a server object of the SDK, or a name for the server that the other arguments name.
            command: The program to start.
            args: Its arguments.
            env: Its environment variables.
            url: The address of a server that speaks streamable HTTP, in place of a program.
            headers: HTTP headers for it.

        Raises:
            ToolError: The server cannot be started or reached.
            MissingExtraError: The package `mcp` is not installed.

        Example:
            >>> tools = await Tool.from_mcp("files", command="uvx", args=["mcp-server-time"])
        """
        from lm_deluge.tools.mcp.server import MCPServer

        if isinstance(server, str):
            server = MCPServer(command, *args, env=env, url=url, headers=headers, name=server)
        elif not isinstance(server, MCPServer):
            server = MCPServer(server)
        async with server:
            return list(server.tools)

    @classmethod
    async def from_mcp_config(cls, config: Any) -> list[Tool]:
        """Return the tools of all servers of a configuration, `{"mcpServers": {name: {...}}}` or the path of a file.

        Raises:
            ConfigurationError: It is no such configuration.
            ToolError: A server cannot be started or reached.
            MissingExtraError: The package `mcp` is not installed.
        """
        from lm_deluge.tools.mcp.server import MCPServer

        return [tool for server in MCPServer.from_config(config) for tool in await cls.from_mcp(server)]

    def with_target(self, target: ToolTarget) -> Self:
        """Return the tool with something to run."""
        copied = type(self)(**{name: getattr(self, name) for name in self.__struct_fields__})
        vars(copied)[_TARGET] = target
        return copied

    @property
    def target(self) -> ToolTarget | None:
        """What the tool runs, or None."""
        found: ToolTarget | None = vars(self).get(_TARGET)
        return found

    @property
    def function(self) -> Callable[..., Any] | None:
        """The function that the tool runs, or None."""
        return None if self.target is None else self.target.function

    def call(self, /, **arguments: Any) -> Any:
        """Validate the arguments, run the tool and return the result of its function.

        An async function runs to its end: in the event loop of a thread of its own where the calling thread has a
        running one. In async code use `await tool.acall(...)` instead, which does not block the event loop.

        Raises:
            InvalidValueError: An argument is missing, unknown or does not fit.
            ConfigurationError: The tool has no function.

        Example:
            >>> Tool.from_function(weather).call(city="Rome")
        """
        from lm_deluge.tools.invocation import call_blocking

        return _value(call_blocking(*self._bound(arguments)))

    async def acall(self, /, **arguments: Any) -> Any:
        """Validate the arguments, run the tool and return the result of its function. A sync function runs in a thread.

        Raises:
            InvalidValueError: An argument is missing, unknown or does not fit.
            ConfigurationError: The tool has no function.
        """
        from lm_deluge.tools.invocation import call_async

        return _value(await call_async(*self._bound(arguments)))

    def _bound(self, arguments: Mapping[str, Any]) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
        if self.target is None:
            raise ConfigurationError(f"the tool {self.name} has no function to run", hint="Use Tool.from_function.")
        return self.target.function, *self.target.bind(arguments)


class ProviderTool(msgspec.Struct, frozen=True):
    """A tool in the provider's own JSON format, for example one that the provider runs itself.

    `data` is added to the request's tools unchanged; other providers reject it.

    Example:
        >>> client.stream("Latest news?", tools=[ProviderTool({"type": "web_search"})])
    """

    data: dict[str, Any]

    @property
    def name(self) -> str:
        """The tool's name in `data`, or its type where it has no name."""
        named = self.data.get("name") or self.data.get("type") or next(iter(self.data), "")
        return str(named)


class _FunctionTarget(NamedTuple):
    function: Callable[..., Any]
    signature: Signature

    def bind(self, arguments: Any) -> tuple[list[Any], dict[str, Any]]:
        return self.signature.bind(arguments)


class _ModelTarget(NamedTuple):
    function: Callable[..., Any]
    schema: SchemaType

    def bind(self, arguments: Any) -> tuple[list[Any], dict[str, Any]]:
        return [self.schema.validate(arguments)], {}


def _unchanged(value: Any) -> Any:
    return value


def _value(result: Any) -> Any:
    return result.value if isinstance(result, ToolReturn) else result


def to_tools(tools: Any) -> tuple[Tool | ProviderTool, ...]:
    """Return the tools of a call, which may be given as functions, models, MCP servers or plain data.

    Plain data with a type other than `function` is the provider's own tool.

    Raises:
        InvalidPromptError: One is none of these, two have the same name, or no provider accepts the schema of one.
        ConfigurationError: An MCP server is not connected.
    """
    if tools is None:
        return ()
    if isinstance(tools, str | Mapping | Tool) or not isinstance(tools, Iterable):
        raise InvalidPromptError("tools must be a list of tools")
    found = [tool for each in tools for tool in _to_tool(each)]
    for tool in found:
        problem = argument_schema_problem(tool.parameters) if isinstance(tool, Tool) else None
        if problem is not None:
            raise InvalidPromptError(f"the JSON schema of the tool {tool.name} {problem}")
    names = [tool.name for tool in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidPromptError(
            f"two tools are named {twice!r}", hint="Tool.from_function has name=, and MCPServer has prefix=."
        )
    return tuple(found)


def _to_tool(tool: Any) -> tuple[Tool | ProviderTool, ...]:
    if isinstance(tool, Tool | ProviderTool):
        return (tool,)
    if isinstance(tool, Mapping):
        data = to_plain(tool)
        return (ProviderTool(data) if data.get("type", "function") != "function" else Tool.from_dict(data),)
    if inspect.isclass(tool):
        return (Tool.from_model(tool),)
    if isinstance(tool, ToolSource):
        return tool.tools
    if callable(tool):
        return (Tool.from_function(tool),)
    raise InvalidPromptError(
        f"{type(tool).__name__} is no tool", hint="Pass a function, a Tool, a model, an MCPServer or a JSON schema."
    )

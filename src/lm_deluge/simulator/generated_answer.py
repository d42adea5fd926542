"""Answers generated from the request, for requests without a script.

The answer is a call of an offered tool, JSON where the request wants JSON, or else the demo answer. So a program that
uses tools, schemas or reasoning can be tried out without a key and without a script.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.encoders.gemini_generate.fields import lower_types
from lm_deluge.prompt.parts import TextPart, ToolResultPart
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.simulator.demo_answer import write_demo_answer

__all__ = ["make_call", "make_example", "make_reasoning", "make_text"]

_DEEPEST = 8  # levels of nesting: enough for schemas in use, and an end for schemas that contain themselves
_MOST_ITEMS = 20  # of an array: satisfies a usual `minItems`, and a huge one cannot exhaust memory

Schema = Mapping[str, Any]


def make_call(request: ParsedRequest) -> tuple[str, Any] | None:
    """Return name and arguments of a tool call: of the tool that the request requires, or else of the first tool.

    None if the request offers no tools of its own, forbids calls, or ends with tool results.
    """
    choice = request.params.tool_choice
    last = request.conversation.messages[-1:]
    tools = [function for tool in request.tools for function in _functions(tool)]
    if not tools or choice == "none" or (last and last[0].role == "tool"):
        return None
    name, schema = next((function for function in tools if function[0] == choice), tools[0])
    return name, make_example(schema or {"type": "object"})


def _functions(tool: Tool | ProviderTool) -> Iterator[tuple[str, Any]]:
    """Yield names and schemas of the functions of a tool; a tool that the provider runs itself has none.

    A function whose name `Tool` does not allow is a `ProviderTool` in the format of Anthropic or Gemini.
    """
    match tool:
        case Tool(name=name, parameters=parameters):
            yield name, parameters
        case ProviderTool(data={"name": str(name), "input_schema": dict(schema)}):
            yield name, schema
        case ProviderTool(data={"functionDeclarations": [{"name": str(name), **fields}]}):
            yield name, lower_types(fields.get("parametersJsonSchema") or fields.get("parameters"))


def make_text(request: ParsedRequest) -> str:
    """Return the text of an answer: JSON if the request wants JSON, tool results, or the demo answer."""
    if request.output is not None:
        return json.dumps(make_example(request.output), ensure_ascii=False)
    last = request.conversation.messages[-1:]
    results = [part.content for part in last[0].parts if isinstance(part, ToolResultPart)] if last else []
    questions = [message for message in request.conversation if message.role == "user"]
    question = "".join(part.text for part in questions[-1].parts if isinstance(part, TextPart)) if questions else ""
    if request.params.json_mode:
        return json.dumps({"simulated": True, "question": question}, ensure_ascii=False)
    return f"The tool returned: {' '.join(results)}" if results else write_demo_answer(question)


def make_reasoning(request: ParsedRequest) -> str:
    """Return reasoning text if the request sets a reasoning effort, else an empty string."""
    if request.params.reasoning_effort in (None, "none"):
        return ""
    return "A simulator does not think. These words stand where a reasoning model shows its thoughts."


def make_example(schema: Any) -> Any:
    """Return a value that follows a JSON schema, as far as types, choices, examples and minimum sizes are concerned."""
    return _example(schema, "", schema, 0)


def _example(schema: Any, name: str, root: Any, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return None
    for choice in (schema.get("examples"), schema.get("enum")):
        if isinstance(choice, list) and choice:
            return choice[0]
    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]
    target = _resolved(schema, root)
    if target is not None:
        return _example(target, name, root, depth + 1)
    make = _MAKERS.get(_kind(schema))
    return None if make is None else make(schema, name, root, depth)


def _resolved(schema: Schema, root: Any) -> Any:
    """Return the target of `$ref`, or the first alternative of `anyOf` and its like; None for other schemas."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        found = root
        for step in reference.removeprefix("#").strip("/").split("/"):
            found = found.get(step) if isinstance(found, Mapping) else None
        return found if found is not schema else None
    alternatives: list[Any] = next(
        (schema[word] for word in ("anyOf", "oneOf", "allOf") if isinstance(schema.get(word), list)), []
    )
    return next((each for each in alternatives if each != {"type": "null"}), None)


def _kind(schema: Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    return kind if isinstance(kind, str) else "object" if "properties" in schema else "string"


def _object(schema: Schema, name: str, root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    fields = properties if isinstance(properties, Mapping) else {}
    return {field: _example(inner, str(field), root, depth + 1) for field, inner in fields.items()}


def _array(schema: Schema, name: str, root: Any, depth: int) -> list[Any]:
    minimum = schema.get("minItems")
    count = min(max(minimum, 1), _MOST_ITEMS) if isinstance(minimum, int) else 1
    return [_example(schema.get("items", {}), name, root, depth + 1)] * count


def _string(schema: Schema, name: str, root: Any, depth: int) -> str:
    return f"some {name}" if name else "some text"


def _number(schema: Schema, name: str, root: Any, depth: int) -> Any:
    return next((schema[word] for word in ("minimum", "maximum") if isinstance(schema.get(word), int | float)), 1)


_MAKERS: dict[str, Callable[[Schema, str, Any, int], Any]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "number": _number,
    "integer": _number,
    "boolean": lambda *_: True,
}

"""Starts answers: checks the request, builds the conversation, stores the messages, and lets the answers run."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec

from lm_deluge.agents.options import LoopOptions
from lm_deluge.client.call_options import CallOptions
from lm_deluge.config import SamplingParams
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import BadRequestError, DelugeError, RateLimitError
from lm_deluge.gateway.answers.incoming import IncomingCall
from lm_deluge.gateway.page.answers.other_answers import OtherAnswers
from lm_deluge.gateway.page.answers.page_answer import PageAnswer, PlannedAnswer, plan_answer
from lm_deluge.gateway.page.answers.prompts import file_ids_of, prompt_of, title_of
from lm_deluge.gateway.page.bodies import AnswerRequest, AnswerSettings, NewMessage, NewText
from lm_deluge.gateway.page.store.conversations import ConversationStore
from lm_deluge.gateway.page.store.database import PageDatabase, new_id
from lm_deluge.gateway.page.store.files import FileStore, StoredFile
from lm_deluge.gateway.page.store.messages import MessageStore, NewAnswers, PathMessage
from lm_deluge.gateway.page.store.records import MessageRecord
from lm_deluge.gateway.page.store.sessions import Visitor
from lm_deluge.gateway.services import GatewayServices
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.tool import ToolSource

__all__ = ["AnswerRunner"]

JSON = dict[str, Any]

_MOST_RUNNING = 16
"""Answers of a user at a time: windows with two models side by side, and a bound for a script that runs wild."""


class AnswerRunner:
    """The answers of the page.

    Args:
        services: What the endpoints of the gateway share.
        database: The database of the page, which is open.
        tools: MCP servers whose tools the models may call.
    """

    def __init__(self, services: GatewayServices, database: PageDatabase, tools: tuple[ToolSource, ...] = ()) -> None:
        self.messages = MessageStore(database)
        self.files = FileStore(database)
        self._conversations = ConversationStore(database)
        self._services = services
        self._tools = tools
        self._running: dict[str, PageAnswer] = {}
        self.others = OtherAnswers(services)

    def running(self, owner: str, message: str) -> PageAnswer | None:
        """Return a running answer of a user."""
        found = self._running.get(message)
        return found if found is not None and found.log.owner == owner else None

    async def stop_all(self, owner: str, conversation: str) -> None:
        """Stop the answers of a conversation."""
        for answer in [*self._running.values()]:
            if answer.conversation == conversation and answer.log.owner == owner:
                await answer.stop()
        for name in await self.messages.unfinished(conversation):
            with contextlib.suppress(DelugeError):  # its process cannot be reached; it stores nothing any more
                await self.others.stop(owner, name)

    async def close(self) -> None:
        """End the answers that are still running, and store what is there of them."""
        await asyncio.gather(*(answer.interrupt() for answer in self._running.values()))
        await self.messages.close()

    async def receipt(self, owner: str, message: str) -> JSON:
        """Return the receipt of an answer that has ended.

        Raises:
            NotFoundError: The user has no such answer.
        """
        found = await self.messages.find(owner, message)
        parts = msgspec.json.decode(found.parts)
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        return {"text": text, "usage": found.usage, "cost": found.cost}

    async def start(
        self, visitor: Visitor, conversation: str, request: AnswerRequest
    ) -> tuple[MessageRecord | None, list[MessageRecord]]:
        """Start answers; return the new message of the user, if there is one, and the answers.

        Raises:
            NotFoundError: There is no such conversation, message, file or model.
            BadRequestError: The request cannot be answered, or a setting is wrong.
            PermissionDeniedError: The key may not use a model.
            ConfigurationError: A model cannot take the call.
        """
        request.check()
        if sum(each.log.owner == visitor.owner for each in self._running.values()) >= _MOST_RUNNING:
            raise RateLimitError(f"{_MOST_RUNNING} answers are running already", status_code=429)
        found = await self._conversations.find(visitor.owner, conversation)
        stored = msgspec.json.decode(found["settings"], type=AnswerSettings)
        settings = stored if request.settings is None else request.settings
        path = await self.messages.path(conversation, request.parent)
        _check_place(path, request)
        own = [] if request.message is None else request.message.file_ids
        files = await self.files.read(visitor.owner, [*file_ids_of(path), *own])
        new = None if request.message is None else _new_message(request.message, files)
        prompt = prompt_of(found["system"], path if new is None else [*path, new], files)
        planned = [await self._plan(visitor, model, prompt, settings) for model in request.models]
        answers = [(new_id(), plan) for plan in planned]
        stored.models = request.models
        records = await self.messages.add(
            NewAnswers(
                conversation=conversation,
                parent=request.parent,
                message=None
                if new is None
                else (new.id, new.parts, "" if request.message is None else request.message.text),
                answers=[(name, plan.model) for name, plan in answers],
                file_ids=own,
                title=_title_of(request.message, files) if not path else "",
                settings=msgspec.json.encode(stored).decode(),
            )
        )
        for name, plan in answers:
            self._run(PageAnswer(self._services, self.messages, self.files, visitor, plan, name, conversation))
            await self.others.announce(name, visitor.owner)
        return (None, records) if new is None else (records[0], records[1:])

    async def _plan(
        self, visitor: Visitor, model: str, prompt: Conversation, settings: AnswerSettings
    ) -> PlannedAnswer:
        await self._services.access.check(visitor.token, model)
        client = self._services.catalog.find(model)
        sampling = settings.sampling()
        has_tools = bool(self._tools) and settings.tools and client.models[0].capabilities.tools
        options = CallOptions(tools=self._tools, loop=LoopOptions(run_tools=True)) if has_tools else CallOptions()
        request = ParsedRequest(
            model=model,
            conversation=prompt,
            params=SamplingParams(**sampling),
            is_streamed=True,
            wants_usage=True,
            raw={},
        )
        return plan_answer(IncomingCall(request, client), options.with_sampling(sampling))

    def _run(self, answer: PageAnswer) -> None:
        async def run() -> None:
            try:
                await answer.run()
            finally:
                del self._running[answer.log.id]

        self._running[answer.log.id] = answer
        self._services.streams.run(self._services.streams.add(answer.log), run())


def _check_place(path: list[PathMessage], request: AnswerRequest) -> None:
    """Check that the parent fits.

    Raises:
        BadRequestError: It is still running, or of a role that cannot be followed.
    """
    if not path:
        return
    last = path[-1]
    if request.message is None and last.role != "user":
        raise BadRequestError("an answer is given to a message of the user: name it as the parent", status_code=400)
    if request.message is not None and last.role != "assistant":
        raise BadRequestError("a message follows an answer: name one as the parent", status_code=400)
    if any(each.status == "running" for each in path):
        raise BadRequestError("the answer before is still running: wait for it, or stop it", status_code=409)


def _title_of(message: NewMessage | None, files: dict[str, StoredFile]) -> str:
    """Return the title of a conversation, from its first message."""
    if message is None:
        return ""
    return title_of(message.text) or title_of(" ".join(files[name].record.name for name in message.file_ids))


def _new_message(message: NewMessage, files: dict[str, StoredFile]) -> PathMessage:
    parts = [
        {"type": "text", "text": part.text} if isinstance(part, NewText) else files[part.file_id].record.part()
        for part in message.parts
    ]
    return PathMessage(new_id(), "user", "complete", msgspec.json.encode(parts).decode(), "")

"""One answer of the page: it runs in the server, with or without a reader, and is stored while it grows."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from lm_deluge.client.call_options import CallOptions
from lm_deluge.dispatch.attempts.call_stream import StreamCall
from lm_deluge.dispatch.budget import Budget
from lm_deluge.dispatch.cache.call import CachedCall
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.hooks import is_interruption
from lm_deluge.dispatch.running_call import RunningCall
from lm_deluge.errors import APIError, DelugeError, ServerError, StreamInterruptedError
from lm_deluge.events import Event, ResponseFinished
from lm_deluge.gateway.access_log import LoggedCall
from lm_deluge.gateway.answers.charge import CallCharge
from lm_deluge.gateway.answers.incoming import IncomingCall
from lm_deluge.gateway.page.answers.prompts import upstream_of
from lm_deluge.gateway.page.answers.shown_parts import ShownParts
from lm_deluge.gateway.page.routes.guard import PAGE_HEADERS
from lm_deluge.gateway.page.store.files import FileStore
from lm_deluge.gateway.page.store.messages import MessageStore
from lm_deluge.gateway.page.store.records import Answered, Status, error_fields, timing, usage_fields
from lm_deluge.gateway.page.store.sessions import Visitor
from lm_deluge.gateway.services import GatewayServices
from lm_deluge.prompt.parts import ImagePart
from lm_deluge.response import APIResponse
from lm_deluge.telemetry.logs import logger
from lm_deluge.ui.encode import frame_encoder
from lm_deluge.ui.failures import as_api_error
from lm_deluge.ui.frame_encoder import DataPart
from lm_deluge.ui.stream_log import StreamLog

__all__ = ["AnswerLog", "PageAnswer", "PlannedAnswer", "plan_answer"]

JSON = dict[str, Any]

_SAVED_EACH_S = 1.0  # how much of an answer is lost if the process is killed
_PROGRESS_EACH_S = 0.25  # four updates of the numbers beside an answer in a second: more cannot be read
_OK, _STOPPED, _FAILED = 200, 499, 502  # statuses in the access log; 499 as for a client that closed its connection


class AnswerLog(StreamLog):
    """The frames of an answer, with plain numbers as the ids of frames.

    Args:
        owner: The user.
        message: Id of the answer, which is that of the log.
    """

    def __init__(self, owner: str, message: str) -> None:
        super().__init__(owner)
        self.id = message

    def numbered(self, position: int) -> bytes:
        """Return a frame with its number."""
        return b"id: %d\n%b" % (position, self.frames[position])


class PlannedAnswer(NamedTuple):
    """A call that can be sent: its options fit the model, and its prompt is encoded.

    Attributes:
        model: The name that the user has chosen.
    """

    model: str
    incoming: IncomingCall
    spec: CallSpec


def plan_answer(incoming: IncomingCall, options: CallOptions) -> PlannedAnswer:
    """Return the plan of an answer, before anything is sent or stored.

    Raises:
        ConfigurationError: The model cannot take the call.
    """
    dispatcher = incoming.client.dispatcher
    planner = dispatcher.planner(options.checked())
    spec = planner.checked(incoming.request.conversation, prefer=dispatcher.next_model().id)
    return PlannedAnswer(incoming.request.model, incoming, spec)


class PageAnswer:
    """One answer.

    Args:
        services: What the endpoints of the gateway share.
        messages: Where the answer is stored.
        files: Where images of the answer are stored.
        visitor: Who pays.
        planned: The call.
        message: Id of the answer.
        clock: Returns seconds.

    Attributes:
        log: The frames.
        conversation: Id of the conversation.
    """

    def __init__(
        self,
        services: GatewayServices,
        messages: MessageStore,
        files: FileStore,
        visitor: Visitor,
        planned: PlannedAnswer,
        message: str,
        conversation: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.log = AnswerLog(visitor.owner, message)
        self.log.stop = self.stop
        self.conversation = conversation
        self._services = services
        self._messages = messages
        self._files = files
        self._visitor = visitor
        self._planned = planned
        self._message = message
        self._clock = clock
        self._encoder = frame_encoder(
            "vercel-ui", message_id=message, error_text=lambda error: error_fields(error)["message"]
        )
        self._shown = ShownParts()
        self._running: RunningCall | None = None
        self._charge: CallCharge | None = None
        self._budget: Budget | None = None
        self._is_stopped = False
        self._is_drained = False  # it was stopped, and is read to its end, as its provider bills all of it
        self._interruption: DelugeError | None = None
        self._has_room = True  # in the log
        self._saved_at = self._progress_at = clock()
        self._ended = asyncio.Event()
        self._logged = LoggedCall(request_id=f"req_{uuid.uuid4().hex}", dialect="page", started_at=time.time())
        self._logged.key_name = visitor.owner
        self._logged.model = planned.model

    async def run(self) -> None:
        """Run the answer to its end; only an interruption of the task gets out of here."""
        self._services.running.add(self)
        headers = {**PAGE_HEADERS, **self._encoder.protocol_headers, "content-type": self._encoder.media_type}
        self.log.start(_OK, headers, is_stream=True)
        self._add(self._encoder.start())
        failure: BaseException | None = None
        try:
            await self._admit()
            failure = await self._relay()
        except BaseException as error:
            failure = error
            if is_interruption(error):
                failure = _interrupted()
                raise
        finally:
            if self._running is not None:
                self._running.abort()
            try:
                await self._finish(failure)
            finally:
                self._services.running.discard(self)
                self._ended.set()

    async def stop(self) -> dict[str, Any]:
        """Stop the answer; return the receipt: what is there of it, and what it cost."""
        if not self._ended.is_set() and not self._is_drained:
            self._is_stopped = True
            self._is_drained = isinstance(self._running, StreamCall) and self._running.bills_when_abandoned
            if self._is_drained:
                await self._send_end(None, self._response())
                self.log.end()
            else:
                await self._abort()
        response = self._response()
        return {
            "text": self._shown.text(),
            "usage": usage_fields(None if response is None else response.usage),
            "cost": None if response is None else response.cost,
        }

    async def interrupt(self) -> None:
        """End the answer because the server ends."""
        if not self._ended.is_set():
            self._interruption = _interrupted()
            await self._abort()

    async def _abort(self) -> None:
        if self._running is not None:
            self._running.abort()
            await self._running.settle()
        await self._ended.wait()

    async def _admit(self) -> None:
        """Get the permission of the key, with a reservation in its budget."""
        incoming, usage = self._planned.incoming, self._planned.incoming.most_usage()
        grant = await self._services.access.grant(
            self._visitor.token,
            self._planned.model,
            tokens=usage.total_tokens,
            cost=incoming.cost(usage),
            least=incoming.cost(msgspec.structs.replace(usage, output_tokens=0)) or 0.0,
        )
        self._charge = CallCharge(grant)
        spec = self._planned.spec
        if spec.open_with is None:
            spec = msgspec.structs.replace(spec, before_attempt=self._before_attempt)
        if grant.max_cost is not None:
            self._budget = Budget(grant.max_cost, "this call")
            spec = msgspec.structs.replace(spec, budgets=(*spec.budgets, self._budget))
        make = spec.open_with or (CachedCall if spec.is_cached else StreamCall)
        self._running = make(spec, incoming.client.dispatcher.runner)

    async def _before_attempt(self, number: int) -> None:
        """Refuse attempts after the answer was stopped.

        Raises:
            APIError: It was.
        """
        if self._is_over:
            raise APIError("the answer was stopped", status_code=_STOPPED)

    async def _relay(self) -> BaseException | None:
        """Pass the events on as they arrive; return the error of an answer that ends with one."""
        running = self._running
        while running is not None and self._is_read and (events := await running.next_batch()):
            await self._take(events, running)
        if running is None or self._is_over:
            return self._interruption
        await running.close()
        error = running.response().error
        return error if isinstance(error, BaseException) else None

    @property
    def _is_over(self) -> bool:
        return self._is_stopped or self._interruption is not None

    @property
    def _is_read(self) -> bool:
        return self._is_drained or not self._is_over

    async def _take(self, events: list[Event], running: RunningCall) -> None:
        if self._charge is not None:
            await self._charge.watch(running, self._budget)
        if self._is_drained:
            return
        self._logged.note_first()
        self._shown.add_all(events)
        now = self._clock()
        data = self._encoder.frames(events)
        is_last = type(events[-1]) is ResponseFinished
        if not is_last and now - self._progress_at >= _PROGRESS_EACH_S:
            self._progress_at = now
            data += self._encoder.frames([_progress(running)])
        self._add(data)
        if not is_last and now - self._saved_at >= _SAVED_EACH_S:
            self._saved_at = now
            with contextlib.suppress(DelugeError):  # of the database; the next second tries again
                await self._messages.save(self._message, self._answered("running", running.response()))

    def _add(self, data: bytes) -> None:
        if data and self._has_room:
            self._has_room = self.log.add(data)

    async def _finish(self, failure: BaseException | None) -> None:
        """Book and store the answer, and then send its end: who reads the end finds the answer stored."""
        response, status = self._response(), self._status(failure)
        self._logged.status = {"stopped": _STOPPED, "complete": _OK}.get(status, _FAILED)
        if failure is not None and status == "failed":
            self._logged.fail(as_api_error(failure).status_code or _FAILED, failure)
        if self._charge is not None:
            await self._charge.settle(response, status=self._logged.status)
        if not self._is_drained:
            await self._send_end(failure, response)
        elif response is not None:
            with contextlib.suppress(DelugeError):  # of the database: the answer is there, with an estimate of its cost
                await self._messages.save_cost(self._message, usage_fields(response.usage), response.cost)
        self._logged.note(response)
        self._services.log.write(self._logged)

    def _status(self, failure: BaseException | None) -> Status:
        return "stopped" if self._is_stopped else "complete" if failure is None else "failed"

    async def _send_end(self, failure: BaseException | None, response: APIResponse | None) -> None:
        """Store the answer, and send its end."""
        problem: BaseException | None
        try:
            problem = await self._store(self._status(failure), failure, response)
        except Exception as error:  # noqa: BLE001 - a reader gets the end of the answer in any case
            problem = error
        if problem is not None:
            logger.error("an answer of the page was not stored: %s", type(problem).__name__)
            unsaved = DataPart("unsaved", {"message": error_fields(problem)["message"]}, transient=True)
            self.log.add(self._encoder.frames([unsaved]))
        self.log.add(self._encoder.end(self._outcome(failure, response)))

    async def _store(
        self, status: Status, failure: BaseException | None, response: APIResponse | None
    ) -> DelugeError | None:
        """Store the answer; return the error of the database, which takes it later."""
        answered = self._answered(status, response, await self._images(response))
        answered.text = self._shown.text()
        answered.error = error_fields(failure) if failure is not None and status == "failed" else None
        return await self._messages.save_end(self._message, answered)

    def _outcome(self, failure: BaseException | None, response: APIResponse | None) -> APIResponse | BaseException:
        if self._is_stopped:
            stopped = APIResponse() if response is None else msgspec.structs.replace(response)
            stopped.finish_reason, stopped.error = None, None
            return stopped
        if failure is not None or response is None:
            return failure or ServerError("the answer has no end")
        return response

    def _response(self) -> APIResponse | None:
        return None if self._running is None else self._running.response()

    async def _images(self, response: APIResponse | None) -> list[JSON]:
        """Store the images of the answer; return them as parts."""
        found: list[JSON] = []
        for part in () if response is None else response.content.parts:
            if not isinstance(part, ImagePart) or not part.media.data:
                continue
            media_type = part.media.media_type or ""
            name = f"image-{len(found) + 1}.{media_type.rpartition('/')[2] or 'png'}"
            with contextlib.suppress(DelugeError):  # there is no room for more files: the text is stored without it
                record = await self._files.add(
                    self.log.owner,
                    name=name,
                    media_type=media_type,
                    data=part.media.data,
                    conversation=self.conversation,
                )
                found.append(record.part())
        return found

    def _answered(self, status: Status, response: APIResponse | None, images: Sequence[JSON] = ()) -> Answered:
        parts = msgspec.json.encode([*self._shown.parts(), *images])
        if response is None:
            return Answered(status=status, parts=parts, upstream="")
        first_token_s, duration_s = timing(response)
        return Answered(
            status=status,
            parts=parts,
            upstream=upstream_of(response, len(self._planned.spec.conversation)),
            usage=usage_fields(response.usage),
            cost=response.cost,
            first_token_s=first_token_s,
            duration_s=duration_s,
        )


def _interrupted() -> DelugeError:
    return StreamInterruptedError("the server was stopped before the answer was complete")


def _progress(running: RunningCall) -> DataPart:
    """Return the numbers beside a growing answer."""
    response, stats = running.response(), running.stats()
    numbers = {
        "output_tokens": stats.output_tokens,
        "tokens_per_s": stats.tokens_per_second,
        "first_token_s": stats.time_to_first_token,
        "cost": response.cost,
    }
    return DataPart("progress", numbers, transient=True)

"""A server that answers every request with the same short stream, with little CPU time of its own.

The stream is sent in one write, or with the argument `flowing` event by event, as models generate it. With the argument
`long` the answer has 500 tokens in place of 24, with `tiny` a single one. With the argument `calling` the answer to a
request with tools also calls one, until the conversation has two results.
"""

import asyncio
import sys

# Text deltas: those of a usual answer, of the shortest one, or the two dozen words of the prompt.
EVENTS = 500 if "long" in sys.argv else 1 if "tiny" in sys.argv else 24
_EVENT = (
    b'data: {"id":"chatcmpl-D8EA5nZ0hOZP7LH1T8J9NNIiYa8n1","object":"chat.completion.chunk","created":1770853433,'
    b'"model":"gpt-4o-mini","service_tier":"default","system_fingerprint":"fp_8b22347a3e","choices":[{"index":0,'
    b'"delta":{"content":" word%d"},"logprobs":null,"finish_reason":null}]}\n\n'
)
_FINISH = (
    b'data: {"id":"chatcmpl-D8EA5nZ0hOZP7LH1T8J9NNIiYa8n1","object":"chat.completion.chunk","created":1770853433,'
    b'"model":"gpt-4o-mini","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
)
_USAGE = (
    b'data: {"id":"chatcmpl-D8EA5nZ0hOZP7LH1T8J9NNIiYa8n1","object":"chat.completion.chunk","created":1770853433,'
    b'"model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":24,"total_tokens":36}}\n\n'
)
TEXT = "".join(f" word{number}" for number in range(EVENTS))
_PLAIN = (
    b'{"id":"c","object":"chat.completion","created":1770853433,"model":"gpt-4o-mini","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"%b"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":12,"completion_tokens":24,"total_tokens":36}}' % TEXT.encode()
)


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


GAP_S = 0.005  # between two events of a flowing answer: slow enough that every peer reads each event separately


def _streamed(*usage: bytes) -> list[bytes]:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    events = [_EVENT % number for number in range(EVENTS)] + [_FINISH, *usage, b"data: [DONE]\n\n"]
    first, *others = map(http_chunk, events)
    return [head + first, *others[:-1], others[-1] + b"0\r\n\r\n"]


STREAMED, STREAMED_WITH_USAGE = _streamed(), _streamed(_USAGE)
_CALL = (
    b'data: {"id":"chatcmpl-D8EA5nZ0hOZP7LH1T8J9NNIiYa8n1","object":"chat.completion.chunk","created":1770853433,'
    b'"model":"gpt-4o-mini","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_%d","type":"function",'
    b'"function":{"name":"weather","arguments":"{\\"city\\": \\"Rome\\"}"}}]},"finish_reason":"tool_calls"}]}\n\n'
)
ROUNDS = 3


def _calling(number: int) -> list[bytes]:
    *before, last = STREAMED_WITH_USAGE
    return [*before[:-2], http_chunk(_CALL % number), before[-1], last]


CALLING = [_calling(number) for number in range(ROUNDS - 1)]
PLAIN = [(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_PLAIN)) + _PLAIN]


def _answer_to(body: bytes) -> list[bytes]:
    if "calling" in sys.argv and b'"tools":' in body and (results := body.count(b'"role":"tool"')) < len(CALLING):
        return CALLING[results]
    if b'"include_usage":' in body:
        return STREAMED_WITH_USAGE
    return STREAMED if b'"stream":true' in body.replace(b" ", b"") else PLAIN


class ShortAnswers(asyncio.Protocol):
    """A connection that answers every request, with a stream if the request asks for a stream."""

    def __init__(self) -> None:
        self._buffered = b""
        self._flows = "flowing" in sys.argv
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffered += data
        while (end := self._buffered.find(b"\r\n\r\n")) >= 0:
            head = self._buffered[:end].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            request_end = end + 4 + length
            if len(self._buffered) < request_end:
                return
            body, self._buffered = self._buffered[end + 4 : request_end], self._buffered[request_end:]
            pieces = _answer_to(body)
            if self._flows:
                self._send(pieces, 0)
            else:
                self._transport.write(b"".join(pieces))

    def _send(self, pieces: list[bytes], number: int) -> None:
        self._transport.write(pieces[number])
        if number + 1 < len(pieces):
            asyncio.get_running_loop().call_later(GAP_S, self._send, pieces, number + 1)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(ShortAnswers, "127.0.0.1", 0, backlog=8192)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())

"""An MCP server without the SDK, which starts in a fraction of its time: `python plain_server.py [lingers|deaf]`.

It speaks protocol 2025-11-25 on standard input and output. `lingers` ignores the end of its input and SIGTERM; `deaf`
never answers.
"""

import json
import os
import signal
import sys
import time

TOOLS = ["add", "complain", "die", "environment", "forever", "grow", "steps"]
KIND = sys.argv[1] if len(sys.argv) > 1 else "plain"


def send(**message: object) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def call(name: str, arguments: dict, meta: dict) -> str | None:
    match name:
        case "add":
            return str(arguments["a"] + arguments["b"])
        case "complain":
            print("x" * 1_000, file=sys.stderr, flush=True)
            return "done"
        case "die":
            os._exit(3)
        case "environment":
            return os.environ.get(arguments["name"], "-")
        case "grow":
            TOOLS.append("extra")
            send(method="notifications/tools/list_changed")
            return "grown"
        case "steps":
            for each in range(2):
                params = {"progressToken": meta["progressToken"], "progress": each, "total": 2}
                send(method="notifications/progress", params=params)
            return "done"
    return None if name == "forever" else name


def answer(method: str, params: dict) -> dict | None:
    match method:
        case "initialize":
            info = {"name": "plain", "version": "1"}
            capabilities = {"tools": {"listChanged": True}}
            return {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info}
        case "tools/list":  # in two pages
            half = TOOLS[:3] if "cursor" not in params else TOOLS[3:]
            listed = [{"name": name, "inputSchema": {"type": "object"}} for name in half]
            return {"tools": listed} | ({} if "cursor" in params else {"nextCursor": "2"})
        case "tools/call":
            text = call(params["name"], params.get("arguments") or {}, params.get("_meta") or {})
            return None if text is None else {"content": [{"type": "text", "text": text}]}
    return None


if KIND == "lingers":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message or "method" not in message or KIND == "deaf":
        continue
    result = answer(message["method"], message.get("params") or {})
    if result is not None:
        send(id=message["id"], result=result)
    elif message["method"] != "tools/call":
        send(id=message["id"], error={"code": -32601, "message": "Method not found"})
if KIND == "lingers":
    time.sleep(60)

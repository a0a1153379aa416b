"""``python -m benchmarks.gateway.echo PORT``: read the body and answer 202; no HTTP gateway in Python does less."""

import sys
from typing import Any

import uvicorn

ANSWER = b'{"accepted":1,"rejected":0,"errors":[]}'
HEADERS = [(b"content-length", str(len(ANSWER)).encode()), (b"content-type", b"application/json")]


async def app(_scope: Any, receive: Any, send: Any) -> None:
    """Answer any request."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 202, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


if __name__ == "__main__":
    uvicorn.run(
        app, port=int(sys.argv[1]), http="httptools", loop="uvloop", log_level="error", access_log=False, lifespan="off"
    )

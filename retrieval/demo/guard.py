"""Checks of every HTTP request before a route sees it, and the headers of every response.

Any web site that is open in the same browser can send requests to 127.0.0.1, so the address alone protects nothing.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
MAX_JSON_BYTES = 64_000
RESPONSE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class RequestError(Exception):
    """A request is invalid; the page shows the message."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Guard:
    """An ASGI application that passes requests of this machine's own page and of command lines to another.

    It also adds the security headers to each response, including those of unexpected errors.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request, and pass it on."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(RESPONSE_HEADERS)
            await send(message)

        try:
            _check_source(scope["method"], Headers(scope=scope))
        except RequestError as error:
            refusal = JSONResponse({"error": str(error)}, status_code=error.status)
            return await refusal(scope, receive, send_with_headers)
        return await self._app(scope, receive, send_with_headers)


def _check_source(method: str, headers: Headers) -> None:
    """Check that a request is addressed to this machine and is not sent by another site's page.

    Origin is compared with Host, not with the server's port, so that a forwarded port works.

    Raises:
        RequestError: If the name of the host is not this machine's (DNS rebinding), or another site sends it.
    """
    host = headers.get("host", "").lower()
    if host.partition(":")[0] not in HOSTS:
        raise RequestError(f"this page is served at {' and '.join(HOSTS)} only; open it there")
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    followed_link = (method, headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == (
        "GET",
        "navigate",
        "document",
    )
    if origin not in (None, f"http://{host}") or (site not in ("same-origin", "none") and not followed_link):
        raise RequestError("this request comes from the page of another site; open the search page itself", 403)


async def read_body(request: Request, limit: int, too_large: str) -> bytes:
    """Return a request's body, without reading much more than the limit.

    Args:
        request: The request.
        limit: Maximum length in bytes.
        too_large: Message of the error.

    Raises:
        RequestError: If the body is longer, declared or received.
    """
    declared = request.headers.get("content-length", "")
    # a longer number than the limit's is larger; int() would refuse thousands of digits
    if declared.isdecimal() and (len(declared.lstrip("0")) > len(str(limit)) or int(declared) > limit):
        raise RequestError(too_large, 413)
    content = bytearray()
    async for chunk in request.stream():
        if len(content) + len(chunk) > limit:
            raise RequestError(too_large, 413)
        content += chunk
    return bytes(content)


async def _read_json(request: Request) -> dict[str, Any]:
    path = request.url.path
    content = await read_body(request, MAX_JSON_BYTES, f"{path}: the request is longer than {MAX_JSON_BYTES} bytes")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):  # includes wrong encodings and integers of thousands of digits
        body = None
    if not isinstance(body, dict):
        raise RequestError(f"{path}: the request has the wrong form")
    return body


JsonBody = Annotated[dict[str, Any], Depends(_read_json)]
"""The JSON object in a request's body, for a route's parameter."""

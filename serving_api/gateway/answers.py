"""What clients are answered: the outcome of their events, or the problem (RFC 9457)."""

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from serving_api.gateway.intake import Submission

PROBLEMS = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    422: "Unprocessable events",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
}


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A request that was refused as a whole."""
    content = {"title": PROBLEMS.get(status, "Error"), "status": status, "detail": detail}
    return Response(msgspec.json.encode(content), status, headers, media_type="application/problem+json")


def status_of(submission: Submission) -> int:
    """The status that tells what became of a request's events.

    202 when all were written, 207 when some were and the others never will be, and 422, or 403 when they are another
    tenant's, when none was. 503 when one may be written later: then the whole request is to be sent again.
    """
    codes = {error.code for error in submission.errors}
    if "unavailable" in codes:
        return 503
    if not codes:
        return 202
    if submission.accepted:
        return 207
    return 403 if codes == {"tenant"} else 422


def outcome(submission: Submission) -> bytes:
    """What became of a request's events, as JSON."""
    content = {"accepted": submission.accepted, "rejected": len(submission.errors), "errors": submission.errors}
    return msgspec.json.encode(content)

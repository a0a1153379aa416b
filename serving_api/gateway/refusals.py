"""What a request can be refused for."""

from collections.abc import Mapping

from freshdata.errors import FreshDataError


class RefusedError(FreshDataError):
    """A request is refused as a whole.

    Attributes:
        status: HTTP status of the answer.
        headers: Headers of the answer.
    """

    def __init__(self, status: int, message: str, *, remedy: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status
        self.headers = dict(headers or {})


def busy(message: str, *, seconds: float, remedy: str = "Send the request again later.") -> RefusedError:
    """A refusal of a tenant that sends too much, with the seconds after which there is room again."""
    return RefusedError(429, message, remedy=remedy, headers={"Retry-After": str(max(1, round(seconds + 0.5)))})


def unavailable(message: str) -> RefusedError:
    """A refusal because of what the gateway itself needs and has not."""
    remedy = "Send the request again: events that were written already are recognised by their key."
    return RefusedError(503, message, remedy=remedy, headers={"Retry-After": "2"})

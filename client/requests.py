"""What a program asks of a FileSystem is one request, however many calls it takes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from ..common import tracing
from .session import Session

P = ParamSpec("P")
T = TypeVar("T")


class HasSession(Protocol):
    _session: Session


F = TypeVar("F", bound=HasSession)


def one_request(
    method: Callable[Concatenate[F, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[F, P], Coroutine[Any, Any, T]]:
    """All calls that *method* makes carry one request id, and are one trace where there are traces.

    Part of a larger request (a command, another method), it belongs to that.
    """
    name = method.__name__

    @wraps(method)
    async def run(self: F, /, *args: P.args, **named: P.kwargs) -> T:
        with tracing.operation(name, self._session.namenode.new_request_id):
            return await method(self, *args, **named)

    return run

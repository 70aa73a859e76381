"""Which request a piece of work belongs to, through all processes; and, if wanted, the spans of an OpenTelemetry trace.

An `Origin` is what travels: a request id (`<32 hex digits of the client>-<number>`), which every log line of the work carries, and
a W3C `traceparent`, which is there only where somebody traces. It is the "current" one of a task or thread; calls to the NameNode
(`messages.Call`) and requests of block streams (`transfer.Traced`) take it along.

OpenTelemetry is the optional extra `otel`, imported by `set_up` alone. While that was not called, a span costs the look at a global.
"""

from __future__ import annotations

import contextvars
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from .. import __version__
from .errors import InvalidConfig
from .runtime import new_uuid

T = TypeVar("T")
# Bounds of what comes from outside and goes to logs and collectors.
REQUEST_ID: Final = r"^([0-9a-f]{32}-[0-9]{1,19})?$"
TRACEPARENT: Final = r"^(00-[0-9a-f]{32}-[0-9a-f]{16}-0[01])?$"
_REQUEST_ID: Final = re.compile(REQUEST_ID)
_TRACEPARENT: Final = re.compile(TRACEPARENT)
PROGRAM: Final = "program"  # endpoint: the provider that the program has set up itself
FLUSH_MS: Final = 5_000
EXPORT_TIMEOUT_S: Final = 5.0
Attributes = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose work this is."""

    request_id: str
    traceparent: str = ""


_current: contextvars.ContextVar[Origin | None] = contextvars.ContextVar("origin", default=None)
current = _current.get
_otel: _OpenTelemetry | None = None


def is_on() -> bool:
    """Whether spans are recorded."""
    return _otel is not None


# --- the current origin ---


@contextmanager
def within(origin: Origin | None) -> Iterator[None]:
    """*origin* is the current one inside the block."""
    token = _current.set(origin)
    try:
        yield
    finally:
        _current.reset(token)


def carried(call: Callable[..., T]) -> Callable[..., T]:
    """*call* for another thread, where it has the origin that is current here."""
    if _current.get() is None:
        return call
    context = contextvars.copy_context()
    return lambda *args: context.run(call, *args)


def bind(origin: Origin | None) -> None:
    """For a thread or task that ends with its work."""
    _current.set(origin)


# --- spans ---


class Span:
    """A span under way, and the origin of what is done in it. Without OpenTelemetry it is the origin alone."""

    __slots__ = ("_recorded", "origin")

    def __init__(self, origin: Origin, recorded: Any = None) -> None:
        self.origin = origin
        self._recorded = recorded

    def note(self, **attributes: str | int | float | bool) -> None:
        """Facts about the work; no paths and no contents."""
        if self._recorded is not None:
            for name, value in attributes.items():
                self._recorded.set_attribute(f"twinfs.{name}", value)

    def end(self, error: str = "") -> None:
        """*error*: the code of what went wrong."""
        if self._recorded is not None:
            if error:
                self._recorded.set_attribute("error.type", error)
                self._recorded.set_status(_failed_status())
            self._recorded.end()


def begin(
    name: str,
    origin: Origin,
    kind: str = "internal",
    *,
    links: tuple[str, ...] = (),
    **attributes: str | int | float | bool,
) -> Span:
    """A span below the one that *origin* names, to be ended. *kind*: "internal", "client" or "server"; *links*: other traceparents."""
    if _otel is None:
        return Span(origin)
    return _otel.begin(name, origin, kind, links, attributes)


@contextmanager
def span(
    name: str,
    kind: str = "internal",
    *,
    origin: Origin | None = None,
    links: tuple[str, ...] = (),
    **attributes: str | int | float | bool,
) -> Iterator[Span | None]:
    """What is done inside, as a span below the current origin (or *origin*); None where there is no origin."""
    found = _current.get() if origin is None else origin
    if found is None:
        yield None
        return
    made = begin(name, found, kind, links=links, **attributes)
    token = _current.set(made.origin)
    try:
        yield made
    except BaseException as error:
        made.end(getattr(error, "code", type(error).__name__))
        raise
    else:
        made.end()
    finally:
        _current.reset(token)


@contextmanager
def operation(name: str, new_id: Callable[[], str]) -> Iterator[None]:
    """What a program asked for: the beginning of a request, unless it is part of one already."""
    if _current.get() is not None:
        yield
        return
    with span(name, origin=Origin(new_id())):
        yield


class _OpenTelemetry:
    """The part that touches OpenTelemetry."""

    def __init__(self, tracer: Any, provider: Any) -> None:
        self._tracer = tracer
        self._provider = provider
        self._trace = importlib.import_module("opentelemetry.trace")
        kinds = self._trace.SpanKind
        self._kinds = {"internal": kinds.INTERNAL, "client": kinds.CLIENT, "server": kinds.SERVER}

    def begin(
        self, name: str, origin: Origin, kind: str, links: tuple[str, ...], attributes: Attributes
    ) -> Span:
        trace = self._trace
        parent = self._context(origin.traceparent)
        context = None  # what the program itself is in the middle of, if anything
        if parent is not None:
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
        elif kind == "server":
            return Span(origin)  # nobody traces this one
        others = [found for found in map(self._context, links) if found is not None]
        recorded = self._tracer.start_span(
            name,
            context=context,
            kind=self._kinds[kind],
            links=[trace.Link(found) for found in others],
            attributes={
                "twinfs.request_id": origin.request_id,
                **{f"twinfs.{key}": value for key, value in attributes.items()},
            },
        )
        own = recorded.get_span_context()
        flags = int(own.trace_flags) & 1
        stamp = f"00-{own.trace_id:032x}-{own.span_id:016x}-{flags:02x}"
        return Span(Origin(origin.request_id, stamp), recorded)

    def _context(self, traceparent: str) -> Any:
        if not traceparent:
            return None
        _, trace_id, span_id, flags = traceparent.split("-")
        found = self._trace.SpanContext(
            int(trace_id, 16),
            int(span_id, 16),
            is_remote=True,
            trace_flags=self._trace.TraceFlags(int(flags, 16)),
        )
        return found if found.is_valid else None

    def close(self) -> None:
        if self._provider is not None:
            self._provider.force_flush(FLUSH_MS)
            self._provider.shutdown()


def _failed_status() -> Any:
    trace = importlib.import_module("opentelemetry.trace")
    return trace.Status(trace.StatusCode.ERROR)


def set_up(role: str, endpoint: str, share: float = 1.0) -> None:
    """Record spans and send them to the OTLP/HTTP collector at *endpoint* (`http://HOST:4318`); nothing if that is "".

    *share* of the requests that begin here are traced; those that come with a trace, as their sender has decided. Raises InvalidConfig if the
    extra is not installed.
    """
    global _otel
    if not endpoint or _otel is not None:
        return
    try:
        trace = importlib.import_module("opentelemetry.trace")
        if endpoint == PROGRAM:
            _otel = _OpenTelemetry(trace.get_tracer("twinfs", __version__), None)
            return
        sdk = importlib.import_module("opentelemetry.sdk.trace")
        sampling = importlib.import_module("opentelemetry.sdk.trace.sampling")
        export = importlib.import_module("opentelemetry.sdk.trace.export")
        resources = importlib.import_module("opentelemetry.sdk.resources")
        otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError:
        raise InvalidConfig(
            "otlp_endpoint: traces need OpenTelemetry: pip install 'twinfs[otel]'"
        ) from None
    facts = {
        "service.name": f"twinfs-{role}",
        "service.version": __version__,
        "service.instance.id": new_uuid(),
    }
    provider = sdk.TracerProvider(
        resource=resources.Resource.create(facts),
        sampler=sampling.ParentBased(sampling.TraceIdRatioBased(share)),
    )
    exporter = otlp.OTLPSpanExporter(
        endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S
    )
    provider.add_span_processor(export.BatchSpanProcessor(exporter))
    _otel = _OpenTelemetry(provider.get_tracer("twinfs", __version__), provider)


def close() -> None:
    """Send what is left, within a few seconds. For the end of a process."""
    global _otel
    if _otel is not None:
        _otel.close()
        _otel = None


def new_request_id() -> str:
    """For work whose client has no id of its own."""
    return f"{new_uuid().replace('-', '')}-1"


def from_headers(headers: Mapping[str, str]) -> Origin:
    """What an HTTP request says about where it comes from; what is malformed there is ignored, as W3C asks."""
    request_id = ""
    for name in ("X-TwinFS-Origin", "X-TwinFS-Request"):
        given = headers.get(name, "")
        if not request_id and _REQUEST_ID.match(given):
            request_id = given
    request_id = request_id or new_request_id()
    stamp = headers.get("traceparent", "")
    return Origin(request_id, stamp if _TRACEPARENT.match(stamp) else "")


__all__ = [
    "REQUEST_ID",
    "TRACEPARENT",
    "Origin",
    "Span",
    "begin",
    "bind",
    "carried",
    "close",
    "current",
    "from_headers",
    "is_on",
    "new_request_id",
    "operation",
    "set_up",
    "span",
    "within",
]

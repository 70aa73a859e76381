"""Logging of the servers: one line an entry, readable or JSON, to standard error."""

from __future__ import annotations

import json
import logging
import sys

from . import tracing
from .errors import InvalidConfig


class _Origins(logging.Filter):
    """Gives every line the id of the request that it belongs to, if there is one."""

    def filter(self, record: logging.LogRecord) -> bool:
        request_id = (getattr(record, "fields", None) or {}).get("request_id", "")
        if not request_id:
            origin = tracing.current()
            request_id = "" if origin is None else origin.request_id
        record.request_id = request_id
        record.origin = f" [{request_id}]" if request_id else ""
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(
            record, "fields", None
        )  # what `extra={"fields": {...}}` says, for programs
        request_id = getattr(record, "request_id", "")
        if request_id:
            entry["request_id"] = request_id
        if fields:
            entry.update(fields)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def _calmly(record: logging.LogRecord) -> bool:
    """What is no HTTP is the sender's fault, and common on an open port: one line, no traceback, as nothing failed here."""
    error = record.exc_info[1] if record.exc_info else None
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "HttpProcessingError" in kinds:
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args = "a request was malformed: %s", (type(error).__name__,)
        record.exc_info = None
        return logging.getLogger().isEnabledFor(logging.INFO)
    if "ClientConnectionResetError" in kinds:  # aiohttp's word for an answer that nobody takes
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        record.msg, record.args, record.exc_info = "who asked was gone before the answer", (), None
        return logging.getLogger().isEnabledFor(logging.DEBUG)
    return True


def set_up(level: str, form: str) -> None:
    """Send everything from *level* on to standard error, as "text" or "json"."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise InvalidConfig(f"log_level must be DEBUG, INFO, WARNING or ERROR, not {level!r}")
    if form not in ("text", "json"):
        raise InvalidConfig(f'log_format must be "text" or "json", not {form!r}')
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Origins())
    handler.setFormatter(
        JsonFormatter()
        if form == "json"
        else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s%(origin)s")
    )
    logging.basicConfig(level=number, handlers=[handler], force=True)
    logging.getLogger("aiohttp.server").addFilter(_calmly)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)

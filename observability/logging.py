"""Structured logs, one JSON object or one readable line an event, with secrets masked before anything is written."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

SECRET_WORDS = ("secret", "password", "token", "api_key", "apikey", "authorization", "signature", "passphrase")


def mask_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the value of every field whose name speaks of a secret, nested dictionaries included."""
    for name, value in event.items():
        if isinstance(value, dict):
            event[name] = mask_secrets(_logger, _method, dict(value))
        elif any(word in name.lower() for word in SECRET_WORDS) and value:
            event[name] = "***"
    return event


def configure_logging(level: str = "INFO", *, as_json: bool = False, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library for this process; called once by a composition root."""
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            mask_secrets,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # Asked for each event, as whoever runs us may put another stream in the place of stderr and close it later.
        logger_factory=lambda *_: structlog.WriteLogger(stream if stream is not None else sys.stderr),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> Any:
    """A logger that carries its room's name; events are short verbs, facts are fields."""
    return structlog.get_logger(room=name)

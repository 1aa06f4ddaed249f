"""The parts of one service that its request handlers use."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import dataclass, field
from typing import Any

from nbexchange.archive import ArchiveLimits
from nbexchange.database import Database
from nbexchange.exchange.commitments import Commitments
from nbexchange.exchange.quotas import Quotas
from nbexchange.handlers.auth.user_handler import BaseUserHandler
from nbexchange.server.metrics import Metrics
from nbexchange.server.rate_limits import RateLimiter
from nbexchange.server.readiness import Readiness
from nbexchange.storage import Storage


@dataclass(frozen=True)
class Services:
    """Made once by the composition root (app.py)."""

    database: Database
    storage: Storage
    user_handler: BaseUserHandler
    readiness: Readiness
    metrics: Metrics
    metrics_token: str
    max_buffer_size: int
    limits: ArchiveLimits
    rate_limiter: RateLimiter
    quotas: Quotas
    commitments: Commitments
    purge_grace: datetime.timedelta
    stopping: asyncio.Event
    """Set when the service was told to stop."""
    under_way: set[asyncio.Future[Any]] = field(default_factory=set)
    """What the end of the service waits for: uploads that arrive, are stored, or are cleaned up."""

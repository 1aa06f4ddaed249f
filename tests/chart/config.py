"""What the service makes of nbexchange_config.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nbexchange.app import NbExchange
from tests.chart import helm


def load(values: dict[str, Any], file: Path) -> NbExchange:
    """The service, as it reads what the chart made of the values."""
    file.write_text(helm.secret(helm.render(values))["nbexchange_config.py"], encoding="utf-8")
    app = NbExchange()
    app.initialize([f"--config-file={file}"])
    return app

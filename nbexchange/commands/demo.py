"""nbexchange demo"""

from __future__ import annotations

from nbexchange.commands.base import Command


class Demo(Command):
    """Take one course through the exchange, step by step."""

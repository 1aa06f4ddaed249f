"""The progress of a long transfer, for a user at a terminal."""

from nbexchange import progress

_LONG = 5_000_000  # bytes; shorter transfers need no progress line


class TransferProgress(progress.Progress):
    def __init__(self, label: str, total: int) -> None:
        self.is_long = total > _LONG
        super().__init__(label, total)

    def how_far(self, done: int, total: int | None) -> str:
        assert total is not None
        return f"{progress.percent(done, total)} % of {total / 1e6:.0f} MB"

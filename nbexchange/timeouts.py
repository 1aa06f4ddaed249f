"""How long the service and the plugin wait, in seconds: one table for both sides.

The plugin has to wait longer than the service allows itself to be silent. Otherwise it gives up a
request that goes well, and sends the same bytes again. Most values are the defaults of options; an
administrator who raises one of the service's has to raise the plugin's too (docs/plugin.md).
"""

# The service, at work

HUB = 4.5
"""For all that one request asks of JupyterHub."""

TURN = 8.0
"""For one turn of a request: to be asked at all, for one more of a person's, for one of all."""

DATABASE = 5.0
"""For an answer of a database server."""

SQLITE = 20.0
"""For other processes that write to the SQLite file."""

STORE_TURN = 20.0
"""For a turn at the object store."""

STORE_ANSWER = 20.0
"""For an answer of the object store, and for each piece of it."""

STORE_RETRIES = 5.0
"""For new tries at the object store."""

REST = 60.0
"""For the check of an archive whose sender's last archive was refused."""

# The service, while it waits for a client

HEADER = 10.0
SILENCE = 30.0

# What that adds up to

_ADMITTED = HUB + TURN
_ITS_TURN = 2 * TURN
_STORED = STORE_TURN + STORE_ANSWER + STORE_RETRIES
_WRITTEN = max(3 * DATABASE, SQLITE)  # a person's turn to write, a course's, and the answer

BEFORE_BODY = _ADMITTED + 2 * DATABASE + _ITS_TURN
"""From the header of an upload until its body is read. All that time nothing of it is read."""

BEFORE_RECEIPT = REST + HUB + _STORED + _WRITTEN
"""From the last byte of an upload to its receipt, besides what its size takes (`storing`)."""

BEFORE_LIST = _ADMITTED + max(_ITS_TURN + 2 * DATABASE, _WRITTEN)
"""Until the first byte of a list, or the answer to what changes a row."""

BEFORE_FILE = _ADMITTED + _WRITTEN + DATABASE + _ITS_TURN + STORE_ANSWER + STORE_RETRIES
"""Until the first byte of a file, or of feedback."""

# The plugin

CONNECT = 3.0
"""For a connection."""

SEND = 60.0
"""Until the other side takes some of a body: longer than BEFORE_BODY, and than SILENCE, so that the
service notices first that the line is dead."""

ANSWER = 45.0
"""For the first byte of an answer without a file, and for each piece of any answer: longer than
BEFORE_LIST."""

TRANSFER = 180.0
"""For a receipt, or the first byte of a file: longer than BEFORE_RECEIPT and BEFORE_FILE."""

_STORING_RATE = 10_000_000  # bytes a second that the service checks and stores at least


def storing(size: int) -> float:
    """Seconds that the service may need to check and store so many bytes."""
    return size / _STORING_RATE

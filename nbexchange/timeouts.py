"""How long the service and the plugin wait, in seconds: one table for both sides.

The plugin must wait longer than the service may take to answer. Otherwise it gives up a request
that is succeeding, and sends the same bytes again. Most values are the defaults of options. An
administrator who raises one of the service's must raise the plugin's, too (docs/plugin.md).
"""

# The service, at work

HUB = 4.5
"""For all requests to JupyterHub that one request causes."""

TURN = 8.0
"""For one wait of a request: for its admission, for a slot of its user, for a slot of all."""

DATABASE = 5.0
"""For an answer of a database server."""

SQLITE = 20.0
"""For the lock while other processes write to the SQLite file."""

STORE_TURN = 20.0
"""For a free slot at the object store."""

STORE_ANSWER = 20.0
"""For an answer of the object store, and for each piece of it."""

STORE_RETRIES = 5.0
"""For retries at the object store."""

REST = 60.0
"""For the check of an archive if the sender's last archive was refused."""

# The service, while it waits for a client

HEADER = 10.0
SILENCE = 30.0

# Sums of these values

_ADMITTED = HUB + TURN
_ITS_TURN = 2 * TURN
_STORED = STORE_TURN + STORE_ANSWER + STORE_RETRIES
_WRITTEN = max(3 * DATABASE, SQLITE)  # the user's turn to write, the course's, and the answer

BEFORE_BODY = _ADMITTED + 2 * DATABASE + _ITS_TURN
"""From the header of an upload until the service begins to read its body."""

BEFORE_RECEIPT = REST + HUB + _STORED + _WRITTEN
"""From the last byte of an upload to its receipt, in addition to `storing`."""

BEFORE_LIST = _ADMITTED + max(_ITS_TURN + 2 * DATABASE, _WRITTEN)
"""Until the first byte of a list, or of the answer to a request that changes a row."""

BEFORE_FILE = _ADMITTED + _WRITTEN + DATABASE + _ITS_TURN + STORE_ANSWER + STORE_RETRIES
"""Until the first byte of a file, or of feedback."""

# The plugin

CONNECT = 3.0
"""For a connection."""

SEND = 60.0
"""Until the other side accepts more of a body: longer than BEFORE_BODY, and than SILENCE, so that
the service is the first to notice a dead connection."""

ANSWER = 45.0
"""For the first byte of an answer without a file, and for each piece of any answer: longer than
BEFORE_LIST."""

TRANSFER = 180.0
"""For a receipt, or the first byte of a file: longer than BEFORE_RECEIPT and BEFORE_FILE."""

_STORING_RATE = 10_000_000  # bytes a second; the minimum at which the service checks and stores


def storing(size: int) -> float:
    """Seconds that the service may need to check and store so many bytes."""
    return size / _STORING_RATE

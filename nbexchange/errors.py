"""All errors as one tree; each class carries its HTTP status.

    NbExchangeError            500
    ├── Malformed              400  the request is not valid
    ├── Unauthenticated        401  the caller is unknown
    ├── Forbidden              403  the caller's role does not have this right
    ├── NotFound               404  it does not exist, or the caller must not know that it does
    ├── NotAllowed             405  the address does not have this method
    ├── Conflict               409  the request contradicts stored data
    ├── AlreadyReleased        412  already released, and the caller wanted the first release only
    ├── TooLarge               413  more bytes than are allowed
    ├── UnsupportedMedia       415  an encoding that is not supported
    ├── OutOfRange             416  the requested bytes do not exist
    ├── Unprocessable          422
    │   ├── BadArchive              not a tar.gz that is safe to unpack
    │   └── DigestMismatch          the bytes that arrived do not match the announced digest
    ├── TooManyRequests        429  try again after `retry_after` seconds
    ├── Damaged                500  a stored blob is corrupt or missing
    ├── Misconfigured          500  the administrator has to correct the configuration
    │   └── MalformedIdentity       the user handler returned an invalid identity
    ├── Unavailable            503  a required part is unavailable (`retry_after` seconds)
    └── StoreFull              507  no space left for the bytes

The message is for the user of the notebook: it says what happened and what to do. Secrets and
internal details go to the log, never into a message.
"""


class NbExchangeError(Exception):
    """The base class. By itself it means a bug in this program."""

    status = 500


class Malformed(NbExchangeError):
    status = 400


class Unauthenticated(NbExchangeError):
    status = 401


class Forbidden(NbExchangeError):
    status = 403


class NotFound(NbExchangeError):
    status = 404


class NotAllowed(NbExchangeError):
    status = 405


class Conflict(NbExchangeError):
    status = 409


class AlreadyReleased(NbExchangeError):
    status = 412


class TooLarge(NbExchangeError):
    status = 413


class UnsupportedMedia(NbExchangeError):
    status = 415


class OutOfRange(NbExchangeError):
    """`size` is the number of bytes that exist."""

    status = 416

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class Unprocessable(NbExchangeError):
    status = 422


class BadArchive(Unprocessable):
    pass


class DigestMismatch(Unprocessable):
    pass


class TooManyRequests(NbExchangeError):
    status = 429

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Damaged(NbExchangeError):
    pass


class Misconfigured(NbExchangeError):
    pass


class MalformedIdentity(Misconfigured):
    pass


class Unavailable(NbExchangeError):
    """`nothing_written`: it is certain that the database did not commit the request's rows."""

    status = 503

    def __init__(
        self, message: str, retry_after: int = 5, *, nothing_written: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.nothing_written = nothing_written


class StoreFull(NbExchangeError):
    status = 507

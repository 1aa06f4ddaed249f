"""Explain failures between the plugin and the service: broken connections, and proxies' pages.

The service answers in JSON, and each refusal has a `note`. An answer without a note comes from
something else: most often a proxy, with limits that the service does not know.
"""

import os
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass

import requests
from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import NewConnectionError

CHECK_ADDRESS = (
    "Check the address of the exchange service (NBEXCHANGE_URL, c.Exchange.base_service_url)."
)

HUB_PROXY_LIMIT = 300.0
"""Seconds after which JupyterHub's proxy ends a request whose body has not fully arrived. It is a
limit of Node.js (`requestTimeout`), checked every thirty seconds."""

_CHECK_INTERVAL = 30.0
_SLACK = 10.0

TRY_AGAIN = "Try again in a few minutes. If it happens again, contact your administrator."


def without_password(url: str) -> str:
    """The address without a user name and password that it may contain."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def proxy_in_environment(url: str) -> str:
    """A sentence about the proxy that the environment sets for this address; empty if none."""
    scheme = urllib.parse.urlsplit(url).scheme
    host = urllib.parse.urlsplit(url).hostname
    name = next((name for name in _variables(scheme) if os.environ.get(name)), None)
    if name is None:
        return ""
    if select_proxy(url, get_environ_proxies(url)) is None:
        return f" The plugin bypasses the proxy in {name}, because NO_PROXY covers {host}."
    shown = without_password(os.environ[name])
    return (
        f" The plugin uses the proxy {shown} ({name}). If the service can be reached without a "
        f"proxy, set NO_PROXY={host}."
    )


def _variables(scheme: str) -> list[str]:
    lower = [f"{scheme}_proxy", "all_proxy"]
    return [name for variable in lower for name in (variable, variable.upper())]


@dataclass(frozen=True)
class Attempt:
    """How far one request got. `size` is 0 if it has no body."""

    url: str
    """The address for messages, without a password."""
    size: int
    sent: int
    seconds: float

    @property
    def is_hopeless(self) -> bool:
        """Whether the next attempt would be cut off at the same time."""
        return self.size > 0 and self._was_cut_by_hub

    @property
    def _was_cut_by_hub(self) -> bool:
        late = HUB_PROXY_LIMIT + _CHECK_INTERVAL + _SLACK
        return HUB_PROXY_LIMIT - _SLACK <= self.seconds <= late

    def connection_error(self, error: requests.RequestException, send_timeout: float) -> str:
        """What went wrong with the connection, as the end of "The exchange service at …"."""
        causes = list(_causes(error))
        if isinstance(error, requests.exceptions.ProxyError):
            return "cannot be reached."
        if isinstance(error, requests.Timeout) and not isinstance(error, requests.ConnectTimeout):
            return "does not answer in time."
        if isinstance(error, requests.ConnectTimeout) or any(
            isinstance(reason, NewConnectionError) for reason in causes
        ):
            return "cannot be reached."
        if not self.sent:
            return "closed the connection without an answer."
        if any(isinstance(reason, TimeoutError) for reason in causes):
            return f"accepted no more data for {send_timeout:g} seconds, {self._when}."
        return f"closed the connection {self._when}.{self._cut}"

    def unexpected_answer(self, status: int) -> str:
        """Explain an answer that does not come from the service."""
        proxy = f"A proxy between this notebook and the exchange service at {self.url}"
        if status == requests.codes.request_entity_too_large and self.size:
            return (
                f"{proxy} does not accept uploads of this size (413): {amount(self.size)} packed. "
                "Leave out large files, or ask your administrator to raise the limit of the proxy "
                "(nginx: client_max_body_size)."
            )
        if status == requests.codes.request_timeout and self.size:
            return f"{proxy} ended the request (408) {self._when}.{self._cut or self._faster}"
        if status in (502, 503, 504):
            reason = "it cannot reach the service, or gets no answer in time."
            return f"{proxy} answers {status}: {reason} {TRY_AGAIN}"
        if status in (401, 403, 407):
            return (
                f"{proxy} answers {status} with a page of its own, perhaps for a login. "
                f"{CHECK_ADDRESS} Or ask your administrator to let notebooks through."
            )
        return (
            f"The server at {self.url} is not the exchange service but perhaps a proxy: it answers "
            f"{status} with a page of its own. {CHECK_ADDRESS}"
        )

    def redirect(self, location: str | None) -> str:
        """Explain a redirect."""
        parts = urllib.parse.urlsplit(without_password(location or ""))
        to = parts._replace(query="", fragment="").geturl()
        return (
            f"The address {self.url} redirects to another page{f', {to}' if to else ''}, perhaps "
            f"the login page of a proxy. {CHECK_ADDRESS}"
        )

    @property
    def _when(self) -> str:
        return f"after {amount(self.sent)} of {amount(self.size)} and {self.seconds:.0f} seconds"

    @property
    def _cut(self) -> str:
        if not self._was_cut_by_hub:
            return ""
        return (
            " JupyterHub's proxy ends every request after 300 seconds. Leave out large files or "
            "use a faster connection, or ask your administrator for an address of the exchange "
            "that does not lead through that proxy."
        )

    @property
    def _faster(self) -> str:
        return " Leave out large files, or ask your administrator to raise the limit of the proxy."


def amount(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size:,} bytes"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and its causes."""
    while error is not None:
        yield error
        inner = getattr(error, "reason", None)
        arguments = [inner, *error.args]
        error = next(
            (argument for argument in arguments if isinstance(argument, BaseException)), None
        )

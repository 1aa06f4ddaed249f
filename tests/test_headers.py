"""Every answer tells browsers not to render, guess or keep it."""

from __future__ import annotations

import pytest

from nbexchange.handlers import MACHINES, ROUTES
from tests.support.course import PS1, receipt, release

EXPECTED = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
}


@pytest.mark.parametrize("who", ["a member", "a stranger"])
def test_every_answer_is_sandboxed_and_not_sniffed(service, who):
    ada = service.instructor()
    receipt(release(ada))
    wire = ada if who == "a member" else service.wire(None)
    paths = [path for path, _ in ROUTES] + ["absent"]

    answers = {path: wire.get(path, **PS1) for path in paths}

    for path, answer in answers.items():
        assert EXPECTED.items() <= dict(answer.headers).items(), path
        assert answer.headers["Cache-Control"] in ("no-store", "private, no-cache"), path


@pytest.mark.parametrize("path", [path for path, _ in MACHINES])
def test_probes_and_metrics_are_sandboxed_and_not_sniffed(service, path):
    answer = service.wire(None).session.get(f"http://127.0.0.1:{service.port}{path}")

    assert EXPECTED.items() <= dict(answer.headers).items()

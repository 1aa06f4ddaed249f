"""That the quick way of running nbgrader in these tests is nbgrader."""

from __future__ import annotations

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["list"], id="success"),
        pytest.param(["fetch_assignment", "nope"], id="failure"),
        pytest.param(["list", "--no-such-option"], id="usage"),
        pytest.param(["release_assignment", "a+b"], id="traceback"),
    ],
)
def test_a_forked_command_is_the_command(alice, arguments):
    forked = alice.nbgrader(*arguments)
    started = alice.nbgrader_in_a_new_process(*arguments)

    assert forked.status == started.status
    # A traceback begins with frames of whoever called main().
    assert forked.lines[-3:] == started.lines[-3:]
    assert ("Traceback" in forked.output) == ("Traceback" in started.output)

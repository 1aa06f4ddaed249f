"""One hub for the LMSs of two organisations, each of which has people 1, 2 and 3."""

from __future__ import annotations

import pytest

from tests.support.launches import hub_with_launches
from tests.support.lms import Browser, lms, words

pytestmark = pytest.mark.slow

BEFORE = """
c.Authenticator.admin_users = {"1", "7-2"}
c.Authenticator.blocked_users = {"7-3"}
"""

OPTIONS = (
    "prefix_names=True, course_id=lambda it: "
    "it.label if it.label == 'phys101' else f'{it.platform}-{it.label}'"
)

ELSEWHERE = {"consumer_key": "elsewhere", "secret": "its-secret"}


@pytest.fixture(scope="module", params=[6, 5], ids=["hub-6", "hub-5"])
def version(request):
    return request.param


def test_people_of_two_organisations_never_share_an_account(tmp_path, version):
    where = lms.Course("1", "LAB", "The lab")
    with (
        lms.Platform() as platform,
        hub_with_launches(
            tmp_path, platform, before=BEFORE, options=OPTIONS, version=version
        ) as hub,
    ):

        def launch(name, where=where, **changes):
            return Browser(platform).launch("1.1", lms.Person(name, name), where, **changes)

        for name in ("1", "2"):
            assert launch(name).status_code == 302
            assert launch(name, **ELSEWHERE).status_code == 302
        refused = launch("3", **ELSEWHERE)
        alike = Browser(platform).launch(
            "1.1", lms.Person("1", "1"), lms.Course("2", "Lab", "Another", {"1": "instructor"})
        )
        pretender = Browser(platform).post(f"{hub.url}/hub/lti/launch", {"by_name": "7-1"})
        assert launch("3").status_code == 302
        both = lms.Course("9", "phys101", "Physics")
        assert launch("1", both).status_code == 302
        taken = launch("1", both, **ELSEWHERE)
        properties_before = hub.do("GET", "/groups/nbgrader-phys101")["properties"]
        for role in ("formgrade", "nbgrader"):
            hub.do("PUT", f"/groups/{role}-phys101/properties", {"org_id": "7"})
        given = launch("1", both, **ELSEWHERE)

        # The hub itself makes those that its configuration names.
        users = [user for user in hub.do("GET", "/users") if user["name"] != "1"]
        people = {user["name"]: user for user in users}
        assert set(people) == {"1-1", "1-2", "1-3", "7-1", "7-2"}
        assert [name for name, user in people.items() if user["admin"]] == ["7-2"]
        assert people["1-1"]["groups"] != people["7-1"]["groups"]
        # The accounts that instructors share have no capitals.
        assert (alike.status_code, "no usable course id" in words(alike)) == (500, True)
        assert (taken.status_code, "no usable course id" in words(taken)) == (500, True)
        assert properties_before == {"title": "Physics"}
        # The exchange reads the digits as the number.
        assert given.status_code == 302
        assert (pretender.status_code, "only log in by a launch" in words(pretender)) == (403, True)
        assert (refused.status_code, "7-3 may not log in" in words(refused)) == (403, True)

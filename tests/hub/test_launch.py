"""Launches from a pretend LMS into a real hub."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest

from tests.support.launches import hub_with_launches
from tests.support.lms import COURSES, PEOPLE, Browser, course_id_in, lms, words
from tests.support.process import wait_until

OPERATORS_HOOK = """
async def hook(authenticator, handler, auth_model):
    await asyncio.sleep(0)
    if auth_model["name"] == "olga":
        auth_model["groups"] = ["staff"]
    if auth_model["name"] == "outcast":
        return None
    return auth_model

c.Authenticator.post_auth_hook = hook
"""

GO_BACK = "Go back to your course, reload its page, and open the link again"


@pytest.fixture(scope="module")
def platform():
    with lms.Platform() as platform:
        yield platform


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(6, id="hub-6"),
        pytest.param(5, id="hub-5", marks=pytest.mark.slow),
    ],
)
def hub(request, platform, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    with hub_with_launches(
        folder, platform, before=OPERATORS_HOOK, version=request.param
    ) as running:
        yield running


@pytest.fixture(params=["1.3", "1.1"])
def version(request):
    return request.param


def person(name):
    """A person who is new to the hub."""
    return lms.Person(name, name.title())


def course(context_id, label="LAB", title=None, **roles):
    return lms.Course(context_id, label, title or f"The course {context_id}", roles)


def launch(platform, version, who, where, **changes):
    said = Browser(platform).launch(version, who, where, **changes)
    assert said.status_code == 302, words(said)
    return said


def groups_of(hub, name):
    return set(hub.do("GET", f"/users/{name}")["groups"])


def properties_of(hub, group):
    return hub.do("GET", f"/groups/{group}")["properties"]


# -- what a launch does


def test_a_launch_makes_the_person_the_course_and_the_role(hub, platform, version):
    ada, zoe = (person(f"{name}-makes-{version}") for name in ("ada", "zoe"))
    where = course(
        f"makes-{version}", "Physics 101", "Physics, the first", **{ada.id: "instructor"}
    )

    launch(platform, version, ada, where)
    launch(platform, version, zoe, where)

    course_id = course_id_in(hub, "formgrade-", "Physics, the first")
    assert course_id.startswith("physics-101-")
    assert groups_of(hub, ada.id) == {f"formgrade-{course_id}"}
    assert groups_of(hub, zoe.id) == {f"nbgrader-{course_id}"}
    for group in ("formgrade-", "nbgrader-"):
        assert properties_of(hub, group + course_id)["title"] == "Physics, the first"
    hub.do("DELETE", f"/groups/formgrade-{course_id}")
    hub.do("DELETE", f"/groups/nbgrader-{course_id}")


@pytest.mark.parametrize("button", ["launch-eve-17-13-jupyterlab", "launch-eve-17-11-jupyterlab"])
def test_a_button_of_the_platform_leads_into_the_hub(hub, platform, button):
    said = Browser(platform).press(button)

    assert said.status_code == 302, words(said)
    assert said.headers["Location"] in ("/hub/spawn", "/hub/home")
    assert len(groups_of(hub, "eve")) == 1


def test_a_launch_may_lead_to_a_page(hub, platform, version):
    said = launch(
        platform, version, PEOPLE["ada"], COURSES["17"], to="/hub/user-redirect/formgrader"
    )

    assert said.headers["Location"].endswith("/hub/user-redirect/formgrader")


def test_one_course_is_one_by_both_versions_where_the_operator_says_so(hub, platform):
    who, where = person("both"), course("both")

    launch(platform, "1.3", who, where)
    launch(platform, "1.1", who, where)

    assert len(groups_of(hub, who.id)) == 1


def test_a_person_keeps_the_other_courses(hub, platform, version):
    who = person(f"keeps-{version}")
    hub.add_user(who.id, "staff", "formgrade-by-hand")
    first, second = course(f"keeps-1-{version}"), course(f"keeps-2-{version}")

    launch(platform, version, who, first)
    launch(platform, version, who, second)

    assert {"staff", "formgrade-by-hand"} < groups_of(hub, who.id)
    assert len(groups_of(hub, who.id)) == 4


def test_another_role_takes_the_place_of_the_one_before(hub, platform, version):
    who = person(f"changes-{version}")
    as_student = course(f"changes-{version}")
    as_instructor = course(f"changes-{version}", **{who.id: "instructor"})
    other = course(f"other-{version}")
    launch(platform, version, who, other)
    kept = groups_of(hub, who.id)

    launch(platform, version, who, as_student)
    (student,) = groups_of(hub, who.id) - kept
    launch(platform, version, who, as_instructor)
    (instructor,) = groups_of(hub, who.id) - kept
    launch(platform, version, who, as_student)

    course_id = student.removeprefix("nbgrader-")
    assert instructor == f"formgrade-{course_id}"
    assert groups_of(hub, who.id) == kept | {student}


def test_two_launches_at_once_into_two_courses_are_both_kept(hub, platform, version):
    """The hub makes the account of the first, and waits; meanwhile the second is stored."""
    who = person(f"twin-{version}")
    first, second = course(f"twin-1-{version}"), course(f"twin-2-{version}")

    def exists():
        return hub.api("GET", f"/users/{who.id}").ok

    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(launch, platform, version, who, first)
        wait_until(exists, "the account that the first launch makes")
        launch(platform, version, who, second)
        waiting.result()

    assert len(groups_of(hub, who.id)) == 2


def test_many_launches_of_one_person_at_once_are_all_kept(hub, platform):
    who = person("busy")
    where = [course(f"busy-{number}") for number in range(12)]
    browsers = [Browser(platform) for _ in where]

    with ThreadPoolExecutor(12) as threads:
        said = list(
            threads.map(
                lambda pair: pair[0].launch("1.1", who, pair[1]), zip(browsers, where, strict=True)
            )
        )

    assert {one.status_code for one in said} == {302}
    assert len(groups_of(hub, who.id)) == 12


# -- courses and their names


def test_one_label_in_two_contexts_is_two_courses(hub, platform, version):
    who = person(f"label-{version}")

    launch(platform, version, who, course(f"label-1-{version}", "SAME"))
    launch(platform, version, who, course(f"label-2-{version}", "SAME"))

    assert len(groups_of(hub, who.id)) == 2


def test_a_course_that_is_renamed_is_the_same_and_has_the_new_title(hub, platform, version):
    ada, zoe = person(f"ada-renames-{version}"), person(f"zoe-renames-{version}")
    old = course(f"renamed-{version}", "OLD", "The old title")
    new = course(f"renamed-{version}", "NEW {}", "The new title", **{ada.id: "instructor"})

    launch(platform, version, zoe, old)
    groups = groups_of(hub, zoe.id)
    launch(platform, version, ada, new)
    launch(platform, version, zoe, new)

    (group,) = groups_of(hub, zoe.id)
    assert {group} == groups
    assert groups_of(hub, ada.id) == {group.replace("nbgrader-", "formgrade-")}
    assert properties_of(hub, group)["title"] == "The new title"


def test_a_group_that_only_ends_alike_is_not_a_course_of_the_platform(hub, platform):
    zoe = person("zoe-alike")
    launch(platform, "1.1", zoe, course("alike", "zlabel"))
    (group,) = groups_of(hub, zoe.id)
    hub.do("POST", "/groups/" + group.replace("zlabel", "archive-2024"))

    launch(platform, "1.1", zoe, course("alike", "other label"))

    assert groups_of(hub, zoe.id) == {group}


def test_a_course_id_that_another_course_has_is_refused(hub, platform):
    zoe, late = person("zoe-taken"), person("late-taken")
    launch(platform, "1.1", zoe, course("taken"))
    (group,) = groups_of(hub, zoe.id)
    for name in (group, group.replace("nbgrader-", "formgrade-")):
        hub.do("PUT", f"/groups/{name}/properties", {"nbexchange_context": "of another"})

    refused = Browser(platform).launch("1.1", late, course("taken"))

    assert refused.status_code == 500
    assert "no usable course id" in words(refused)
    assert "is already the course id of another course" in hub.log.read_text()


def test_properties_that_an_administrator_sets_stay(hub, platform):
    who, where = person("kept"), course("kept")
    launch(platform, "1.1", who, where)
    (group,) = groups_of(hub, who.id)
    hub.do("PUT", f"/groups/{group}/properties", {"org_id": 3, "colour": "blue"})

    launch(platform, "1.1", who, where)

    said = {"org_id": 3, "colour": "blue", "title": "The course kept"}
    assert properties_of(hub, group).items() >= said.items()
    other = group.replace("nbgrader-", "formgrade-")
    hub.do("DELETE", f"/groups/{other}")
    launch(platform, "1.1", who, where)
    assert properties_of(hub, other).items() >= said.items()


TITLES = [
    "{}()/\\",
    "{user} %s %(x)s ${HOME} $(id)",
    "   ",
    "Fun 🎉 👩‍🔬 with spaces",
    "../../etc",
    "<script>alert(1)</script>",
    "'; DROP TABLE groups; --",
    "Ψυχολογία",
    "x" * 5000,
    "{{ title }}",
]


@pytest.mark.parametrize("number", range(len(TITLES)))
def test_a_course_may_be_called_anything(hub, platform, number):
    version, text = ("1.3", "1.1")[number % 2], TITLES[number]
    who = person(f"any-{number}")
    where = course(f"any-{number}", text, text)

    launch(platform, version, who, where)
    launch(platform, version, who, where)

    (group,) = groups_of(hub, who.id)
    assert not set(group) & set("{}()/\\ &#+%?🎉<>'\"$;")
    assert hub.api("GET", f"/groups/{group}").ok
    title = properties_of(hub, group).get("title")
    assert title == (" ".join(text.split())[:250] or None)


def test_a_course_whose_groups_vanished_comes_back_with_the_next_launch(hub, platform, version):
    who = person(f"vanished-{version}")
    where = course(f"vanished-{version}", **{who.id: "instructor"})
    launch(platform, version, who, where)
    before = groups_of(hub, who.id)
    for group in before:
        hub.do("DELETE", f"/groups/{group}")
    assert groups_of(hub, who.id) == set()

    launch(platform, version, who, where)

    assert groups_of(hub, who.id) == before
    assert properties_of(hub, *before)["title"] == where.title
    assert grader_page(hub, platform, version, who, where, *before) == 424


def grader_page(hub, platform, version, who, where, group):
    """The hub's answer to a user who opens the server of the course's shared account.

    424 is the page with the button that starts it.
    """
    browser = Browser(platform)
    assert browser.launch(version, who, where).status_code == 302
    grader = group.replace("formgrade-", "grader-").replace("nbgrader-", "grader-")
    return browser.get(f"{hub.url}/hub/user/{grader}/").status_code


def test_only_instructors_of_a_course_share_its_account(hub, platform, version):
    ada, tom, zoe = (person(f"{name}-shares-{version}") for name in ("ada", "tom", "zoe"))
    where = course(f"shares-{version}", **{ada.id: "instructor", tom.id: "assistant"})
    other = course(f"not-shared-{version}", **{zoe.id: "instructor"})
    launch(platform, version, ada, where)
    launch(platform, version, zoe, where)
    (group,) = groups_of(hub, ada.id)

    assert grader_page(hub, platform, version, ada, where, group) == 424
    assert grader_page(hub, platform, version, tom, where, group) == 424
    assert grader_page(hub, platform, version, zoe, where, group) == 404
    assert grader_page(hub, platform, version, zoe, other, group) == 404


def test_instructors_who_come_at_once_into_a_new_course_share_one_account(hub, platform):
    people = [person(f"first-{number}") for number in range(8)]
    where = course("first", title="The first of all", **{who.id: "instructor" for who in people})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda who: launch(platform, "1.1", who, where), people))

    course_id = course_id_in(hub, "formgrade-", "The first of all")
    members = {f"grader-{course_id}", *(who.id for who in people)}
    assert set(hub.do("GET", f"/groups/formgrade-{course_id}")["users"]) == members


def test_an_account_that_is_in_another_course_is_not_shared(hub, platform):
    ada, where = person("ada-apart"), course("apart", **{"ada-apart": "instructor"})
    launch(platform, "1.1", ada, where)
    (group,) = groups_of(hub, ada.id)
    grader = group.replace("formgrade-", "grader-")
    hub.do("DELETE", f"/groups/{group}")
    hub.add_user(grader, "formgrade-secret")

    assert grader_page(hub, platform, "1.1", ada, where, group) == 404
    assert hub.do("GET", f"/users/{grader}")["groups"] == ["formgrade-secret"]
    assert f"The account {grader} is in other courses (secret)" in hub.log.read_text()


def test_a_former_instructor_does_not_share_the_account(hub, platform, version):
    ada, tom = (person(f"{name}-leaves-{version}") for name in ("ada", "tom"))
    where = course(f"leaves-{version}", **{ada.id: "instructor", tom.id: "instructor"})
    launch(platform, version, ada, where)
    launch(platform, version, tom, where)
    (group,) = groups_of(hub, ada.id)

    demoted = course(f"leaves-{version}", **{tom.id: "instructor"})
    assert grader_page(hub, platform, version, ada, demoted, group) == 404
    assert grader_page(hub, platform, version, tom, where, group) == 424


# -- invalid launches


REFUSED_13 = {
    "signed by another key": ({"key": lms.new_key()}, 400, "Signature verification failed"),
    "not signed": ({"algorithm": "none"}, 400, "alg"),
    "signed by a password": ({"key": "x" * 64, "algorithm": "HS256"}, 400, "alg"),
    "of another issuer": ({"iss": "https://evil.example"}, 400, "issuer"),
    "for another tool": ({"aud": "another"}, 401, "Audience"),
    "too old": ({"exp": 1_500_000_000}, 400, "expired"),
    "of another login": ({"nonce": "0" * 32}, 400, "nonce"),
    "without a nonce": ({"nonce": None}, 400, "nonce"),
    "no token": ({"token": "no.token.atall"}, 400, ""),
}

REFUSED_11 = {
    "signed by another secret": ({"secret": "another"}, 401, "Invalid oauth_signature"),
    "of an unknown consumer": ({"consumer_key": "unknown"}, 401, "unknown oauth_consumer_key"),
    "of another consumer": ({"consumer_key": "elsewhere"}, 401, "Invalid oauth_signature"),
    "too old": ({"timestamp": 1_500_000_000}, 401, "Timestamp"),
    "without a user": ({"user_id": None}, 400, "user_id"),
}


@pytest.mark.parametrize(
    ("version", "changes", "status", "why"),
    [
        pytest.param(version, *refused, id=f"{version} {what}")
        for version, table in (("1.3", REFUSED_13), ("1.1", REFUSED_11))
        for what, refused in table.items()
    ],
)
def test_a_launch_that_is_not_the_platforms_is_refused_and_says_what_to_do(
    hub, platform, version, changes, status, why
):
    who = person(f"refused-{version}")

    said = Browser(platform).launch(version, who, course("refused"), **changes)

    assert said.status_code == status
    assert why in words(said)
    assert GO_BACK in words(said)
    assert hub.api("GET", f"/users/{who.id}").status_code == 404


def test_a_launch_of_11_that_was_changed_on_the_way_is_refused(hub, platform):
    form = platform.form_of_11(person("changed"), course("changed"))

    said = Browser(platform).post(platform.launch_url_of_11, {**form, "roles": "Instructor"})

    assert said.status_code == 401
    assert GO_BACK in words(said)


def test_a_launch_counts_once(hub, platform):
    who, where = person("replayed"), course("replayed")
    form = platform.form_of_11(who, where)
    browser = Browser(platform)
    asked = browser.begin_13(who, where)
    token = platform.id_token(platform.claims_of_13(who, where, asked["nonce"]))

    def send(by):
        return by.post(platform.launch_url_of_11, form)

    assert send(Browser(platform)).status_code == 302
    again = send(Browser(platform))
    assert again.status_code == 401
    assert GO_BACK in words(again)

    assert browser.answer_of_13(asked, who, where, token=token).status_code == 302
    for by in (browser, Browser(platform)):
        again = by.answer_of_13(asked, who, where, token=token)
        assert again.status_code == 400
        assert GO_BACK in words(again)
    # With a state of its own, a stolen token has the wrong nonce.
    thief = Browser(platform)
    said = thief.answer_of_13(thief.begin_13(who, where), who, where, token=token)
    assert (said.status_code, "nonce" in words(said)) == (400, True)


@pytest.mark.parametrize(
    "path", ["/hub/lti/launch", "/hub/lti13/oauth_login", "/hub/lti13/oauth_callback"]
)
def test_a_user_without_a_launch_learns_where_to_begin(hub, platform, path):
    said = Browser(platform).get(hub.url + path, allow_redirects=False)

    assert said.status_code in (400, 405)
    assert GO_BACK in words(said)


def test_an_instructor_of_the_institution_alone_is_a_student(hub, platform, version):
    who = person(f"professor-{version}")
    where = course(f"professor-{version}", **{who.id: "professor from outside"})

    launch(platform, version, who, where)

    (group,) = groups_of(hub, who.id)
    assert group.startswith("nbgrader-")


def test_a_launch_from_outside_of_every_course_changes_no_course(hub, platform, version):
    who = person(f"outside-{version}")

    launch(platform, version, who, None)
    assert groups_of(hub, who.id) == set()

    launch(platform, version, who, course(f"inside-{version}"))
    before = groups_of(hub, who.id)
    launch(platform, version, who, None)
    assert groups_of(hub, who.id) == before


@pytest.mark.parametrize(
    "context", [{}, {"id": ""}, {"id": None}, {"id": ["17"]}, {"id": True}, []], ids=repr
)
def test_a_launch_with_an_invalid_context_changes_no_course(hub, platform, context):
    who = person("no-context")

    launch(platform, "1.3", who, course("17"), context=context)

    assert groups_of(hub, who.id) == set()


def test_a_login_without_a_launch_keeps_the_users_groups(hub, platform):
    who = person("plain")
    launch(platform, "1.1", who, course("plain"))
    before = groups_of(hub, who.id)

    for name in (who.id, "newcomer"):
        said = Browser(platform).post(f"{hub.url}/hub/lti/launch", {"by_name": name})
        assert said.status_code == 302, words(said)

    assert groups_of(hub, who.id) == before
    assert groups_of(hub, "newcomer") == set()


@pytest.mark.parametrize("name", ["grader-physics", "Grader-physics", "grader-"])
def test_a_user_cannot_have_the_name_of_a_shared_account(hub, platform, version, name):
    said = Browser(platform).launch(version, person(name), course("grader"))

    assert said.status_code == 403
    assert "Nobody can log in as grader-" in words(said)
    assert hub.api("GET", f"/users/{name.lower()}").status_code == 404


def test_without_a_launch_a_user_cannot_have_that_name_either(hub, platform):
    said = Browser(platform).post(f"{hub.url}/hub/lti/launch", {"by_name": "grader-x"})

    assert said.status_code == 403


# -- platforms, organisations, operators


def test_the_same_context_of_another_platform_is_another_course_in_its_organisation(hub, platform):
    """A platform may claim to be another one; its key identifies it."""
    who, where = person("tenant"), course("tenant")
    launch(platform, "1.1", who, where)
    (here,) = groups_of(hub, who.id)

    launch(platform, "1.1", who, where, consumer_key="elsewhere", secret="its-secret")

    (there,) = groups_of(hub, who.id) - {here}
    assert properties_of(hub, there)["org_id"] == 7
    assert "org_id" not in properties_of(hub, here)


def test_a_platform_that_is_added_on_the_way_does_not_count(hub, platform):
    """The signature is checked with the first consumer key; nothing checks a second one."""
    who, where = person("smuggler"), course("smuggler")
    launch(platform, "1.1", who, where)
    before = groups_of(hub, who.id)
    form = platform.form_of_11(who, where)
    body = urlencode([*form.items(), ("oauth_consumer_key", "elsewhere")])

    said = Browser(platform).session.post(
        platform.launch_url_of_11,
        body,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        allow_redirects=False,
        timeout=60,
    )

    assert said.status_code == 302
    assert groups_of(hub, who.id) == before


def test_a_launch_cannot_pose_as_another_platforms(hub, platform):
    """A consumer signs its whole form, and may put the claims of LTI 1.3 into it."""
    who = person("poser")
    claims = {f"{lms.CLAIM}version": "1.3.0", "iss": platform.consumer_key}

    said = Browser(platform).launch(
        "1.1",
        who,
        course("posed"),
        **claims,
        consumer_key="elsewhere",
        secret="its-secret",
    )

    assert said.status_code == 400
    assert "contradicts itself" in words(said)
    assert GO_BACK in words(said)
    assert hub.api("GET", f"/users/{who.id}").status_code == 404


def test_an_operators_own_hook_is_asked_first(hub, platform, version):
    for number in (1, 2):
        launch(platform, version, person("olga"), course(f"olga-{number}-{version}"))
    assert "staff" in groups_of(hub, "olga")
    assert len(groups_of(hub, "olga")) >= 3

    said = Browser(platform).launch(version, person("outcast"), course("outcast"))
    assert "jupyterhub-session-id" not in said.cookies
    assert hub.api("GET", "/users/outcast").status_code == 404


def test_the_hub_knows_who_it_is_in_the_learning_platform(hub, platform, version):
    who = lms.Person(f"MixedCase-{version}", "Zoë Müller-Ångström")

    launch(platform, version, who, course("who"))

    said = hub.do("GET", f"/users/mixedcase-{version}")
    if hub.do("GET", "/")["version"].startswith("5"):
        assert "user_info" not in said
        return
    assert said["user_info"] == {
        "full_name": "Zoë Müller-Ångström",
        "email": f"MixedCase-{version}@campus.example",
        "lms_user_id": f"MixedCase-{version}",
    }

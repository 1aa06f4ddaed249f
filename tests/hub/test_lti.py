"""The values that are read from a launch, and those that are not trusted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbexchange.hub.lti import ASSISTANTS, CLAIM, INSTRUCTORS, Launch, launch_from, role_from
from tests.support.lms import COURSES, PEOPLE, lms

V2 = "http://purl.imsglobal.org/vocab/lis/v2"
IN_COURSE = f"{V2}/membership"

# LTI roles, the resulting role, and the role if assistants are students.
ROLES = {
    "instructor": ([f"{IN_COURSE}#Instructor"], "Instructor", "Instructor"),
    "learner": ([f"{IN_COURSE}#Learner"], "Student", "Student"),
    "both": ([f"{IN_COURSE}#Learner", f"{IN_COURSE}#Instructor"], "Instructor", "Instructor"),
    "assistant": ([f"{IN_COURSE}/Instructor#TeachingAssistant"], "Instructor", "Student"),
    "assistant, with the role it is a kind of": (
        [f"{IN_COURSE}#Instructor", f"{IN_COURSE}/Instructor#TeachingAssistant"],
        "Instructor",
        "Student",
    ),
    "assistant of a section": (
        [f"{IN_COURSE}/Instructor#TeachingAssistantSection"],
        "Instructor",
        "Student",
    ),
    "lecturer": ([f"{IN_COURSE}/Instructor#Lecturer"], "Instructor", "Instructor"),
    "guest": (
        [f"{IN_COURSE}#Instructor", f"{IN_COURSE}/Instructor#GuestInstructor"],
        "Student",
        "Student",
    ),
    "unknown kind of instructor": (
        [f"{IN_COURSE}#Instructor", f"{IN_COURSE}/Instructor#Wizard"],
        "Instructor",
        "Instructor",
    ),
    "mentor": ([f"{IN_COURSE}#Mentor"], "Student", "Student"),
    "observer": ([f"{IN_COURSE}/Mentor#Observer"], "Student", "Student"),
    "administrator of the course": ([f"{IN_COURSE}#Administrator"], "Student", "Student"),
    "unknown": ([f"{IN_COURSE}#Emperor", "Emperor", ""], "Student", "Student"),
    "nobody": ([], "Student", "Student"),
    "instructor of the institution": (
        [f"{V2}/institution/person#Instructor"],
        "Student",
        "Student",
    ),
    "instructor of the institution who learns": (
        [f"{V2}/institution/person#Instructor", f"{IN_COURSE}#Learner"],
        "Student",
        "Student",
    ),
    "administrator of the system": ([f"{V2}/system/person#Administrator"], "Student", "Student"),
    "1.1 instructor": (["Instructor"], "Instructor", "Instructor"),
    "1.1 instructor as a urn": (["urn:lti:role:ims/lis/Instructor"], "Instructor", "Instructor"),
    "1.1 kind of instructor": (
        ["urn:lti:role:ims/lis/Instructor/Lecturer"],
        "Instructor",
        "Instructor",
    ),
    "1.1 assistant": (["TeachingAssistant"], "Instructor", "Student"),
    "1.1 assistant as a urn": (["urn:lti:role:ims/lis/TeachingAssistant"], "Instructor", "Student"),
    "1.1 assistant of a group": (
        ["urn:lti:role:ims/lis/TeachingAssistant/TeachingAssistantGroup"],
        "Instructor",
        "Student",
    ),
    "1.1 instructor of the institution": (
        ["urn:lti:instrole:ims/lis/Instructor"],
        "Student",
        "Student",
    ),
    "1.1 administrator of the system": (
        ["urn:lti:sysrole:ims/lis/SysAdmin", "urn:lti:sysrole:ims/lis/Instructor"],
        "Student",
        "Student",
    ),
    "1.1 student": (["Student"], "Student", "Student"),
    "space around it": ([" Instructor "], "Instructor", "Instructor"),
    "another spelling": (["instructor", "INSTRUCTOR"], "Student", "Student"),
    "a word that ends so": (
        [f"evil:{IN_COURSE}#Instructor", "NotInstructor"],
        "Student",
        "Student",
    ),
    "a word that begins so": ([f"{IN_COURSE}#InstructorX", "Instructor#"], "Student", "Student"),
    "no text": ([None, 7, ["Instructor"], {"Instructor": 1}], "Student", "Student"),
}


@pytest.mark.parametrize(("roles", "role", "strict"), ROLES.values(), ids=ROLES)
def test_only_a_role_in_the_course_makes_an_instructor(roles, role, strict):
    assert role_from(roles) == role
    assert role_from(roles, INSTRUCTORS - ASSISTANTS) == strict


def test_an_operator_may_have_other_instructors():
    assert role_from([f"{IN_COURSE}#ContentDeveloper"], {"ContentDeveloper"}) == "Instructor"
    assert role_from([f"{IN_COURSE}#Instructor"], {"ContentDeveloper"}) == "Student"


TEAM = [f"{V2}/institution/person#Instructor", f"{V2}/institution/person#Student"]

CHOSEN = {
    "Open edX by 1.3 before 2026": (TEAM, "institution/person#Instructor"),
    "the same by its address": (TEAM, f"{V2}/institution/person#Instructor"),
    "Open edX by 1.1": (["Administrator"], "Administrator"),
    "in the system": ([f"{V2}/system/person#Administrator"], "system/person#Administrator"),
    "in the institution, 1.1": (
        ["urn:lti:instrole:ims/lis/Instructor"],
        "institution/person#Instructor",
    ),
    "in the system, 1.1": (["urn:lti:sysrole:ims/lis/SysAdmin"], "system/person#SysAdmin"),
    "in the course, by its address": ([f"{IN_COURSE}#Mentor"], f"{IN_COURSE}#Mentor"),
}


@pytest.mark.parametrize(("roles", "role"), CHOSEN.values(), ids=CHOSEN)
def test_a_role_outside_the_course_counts_only_where_an_operator_names_it(roles, role):
    assert role_from(roles) == "Student"
    assert role_from(roles, INSTRUCTORS | {role}) == "Instructor"


def test_a_role_that_is_named_counts_in_its_place_only():
    chosen = INSTRUCTORS | {"institution/person#Instructor", "Administrator"}

    assert role_from([f"{V2}/system/person#Instructor"], chosen) == "Student"
    assert role_from([f"{V2}/institution/person#Administrator"], chosen) == "Student"
    assert role_from(["institution/person#Instructor"], chosen) == "Student"


@pytest.fixture(scope="module")
def platform():
    return lms.Platform("http://127.0.0.1:8000", 8010)


def launch_13(platform, person, course, **changes):
    claims = platform.claims_of_13(PEOPLE[person], COURSES[course], "a-nonce", **changes)
    launch = launch_from(claims)
    assert launch
    return launch


def launch_11(platform, person, course, **changes):
    form = platform.form_of_11(PEOPLE[person], COURSES[course], **changes)
    # As the authenticator leaves it: what only OAuth needs is gone.
    told = {key: value for key, value in form.items() if not key.startswith("oauth_")}
    launch = launch_from(told, consumer_key=form["oauth_consumer_key"])
    assert launch
    return launch


def test_a_launch_contains_the_user_the_course_and_the_role(platform):
    psychology = COURSES["42"]
    same = {
        "guid": "campus.example",
        "context_id": "42",
        "label": psychology.label,
        "title": psychology.title,
        "role": "Instructor",
        "full_name": "Ada Lovelace",
        "email": "ada@campus.example",
        "lms_user_id": "ada",
    }

    assert launch_13(platform, "ada", "42") == Launch(platform="http://localhost:8010", **same)
    assert launch_11(platform, "ada", "42") == Launch(platform=platform.consumer_key, **same)


@pytest.mark.parametrize("launch", [launch_13, launch_11], ids=["1.3", "1.1"])
@pytest.mark.parametrize("role", lms.ROLES_OF_13)
def test_both_versions_say_the_same_roles(platform, launch, role):
    roles = (lms.ROLES_OF_13 if launch is launch_13 else lms.ROLES_OF_11)[role]

    said = launch(platform, "zoe", "17", roles=roles).role

    assert said == ("Instructor" if role in ("instructor", "assistant") else "Student")


def test_a_name_may_come_in_two_parts(platform):
    parts_of_13 = {"name": None, "given_name": "Zoë", "family_name": "M"}
    parts_of_11 = {
        "lis_person_name_full": None,
        "lis_person_name_given": "Zoë",
        "lis_person_name_family": "M",
    }

    assert launch_13(platform, "zoe", "17", **parts_of_13).full_name == "Zoë M"
    assert launch_11(platform, "zoe", "17", **parts_of_11).full_name == "Zoë M"


def test_text_for_people_is_one_line_of_a_sensible_length(platform):
    context = {"id": "17", "label": "a\0b", "title": "x\u202ey\n  👩‍🔬 " + "z" * 1000}

    launch = launch_13(platform, "zoe", "17", context=context)

    assert launch.label == "a b"
    assert launch.title == "x y 👩‍🔬 " + "z" * (250 - len("x y 👩‍🔬 "))


@pytest.mark.parametrize(
    "state", [None, {}, [], "launch", 7, {"name": "ada"}, {"iss": "x", "sub": "y"}]
)
def test_other_logins_are_not_launches(state):
    assert launch_from(state) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS_13 = ["iss", "sub", "name", "given_name", "email"] + [
    f"{CLAIM}{one}" for one in ("context", "tool_platform", "roles")
]
FIELDS_11 = [
    "context_id",
    "context_label",
    "context_title",
    "roles",
    "user_id",
    "lis_person_name_full",
]


@given(st.dictionaries(st.sampled_from(FIELDS_13), JSON), JSON)
def test_an_incomplete_launch_of_13_can_be_read(claims, context):
    said = {f"{CLAIM}context": {"id": context, "label": context, "title": context}, **claims}

    launch = launch_from({**said, f"{CLAIM}version": "1.3.0"})

    assert launch
    assert isinstance(launch.course_id, str)
    assert all(isinstance(value, str) for value in launch.user_info.values())


@given(st.dictionaries(st.sampled_from(FIELDS_11), JSON))
def test_an_incomplete_launch_of_11_can_be_read(form):
    launch = launch_from({**form, "lti_version": "LTI-1p0"}, consumer_key="key")

    assert launch
    assert isinstance(launch.course_id, str)

"""Names of courses, of their groups and of their graders."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nbexchange.exchange.names import check_file_name
from nbexchange.hub.graders import check_graders, grader_roles
from nbexchange.hub.naming import (
    INSTRUCTOR,
    LONGEST_COURSE_ID,
    STUDENT,
    check_course_id,
    course_id_from,
    courses_of,
    ending,
    fingerprint,
    grader_for,
    group_for,
    is_grader,
    parse_group,
)
from nbexchange.identity import LONGEST_NAME, is_name
from nbexchange.plugin.courses import folder_of

CONTEXT = ("https://lms.example", "campus", "17")

SLUGS = {
    "PHYS101": "phys101",
    "Physics 101": "physics-101",
    "Physics: {2026} (a/b\\c) 100 % & #1 + ?": "physics-2026-a-b-c-100-1",
    "../../etc/passwd": "etc-passwd",
    "--- ": "course",
    "🎉❤️": "course",
    "Fun 🎉 with 👩‍🔬 science": "fun-with-science",
    "": "course",
    "Ψυχολογία Ι": "ψυχολογία-ι",
    "हिन्दी साहित्य": "हिन्दी-साहित्य",
    "物理学 一": "物理学-一",
    "ＰＨＹＳ １０１": "phys-101",  # full width
    "İstanbul": "i̇stanbul",
    "a\u0000b\u202ec\nd": "a-b-c-d",
    "v1.2_final": "v1.2_final",
    "x" * 500: "x" * 40,
}


@pytest.mark.parametrize(
    ("label", "slug"), SLUGS.items(), ids=[repr(one) for one in SLUGS.values()]
)
def test_a_course_id_begins_with_what_people_call_the_course(label, slug):
    assert re.fullmatch(re.escape(slug) + "-[a-z2-7]{10}", course_id_from(label, *CONTEXT))


def test_a_course_without_a_label_is_a_course():
    assert course_id_from(None, *CONTEXT) == course_id_from("", *CONTEXT)


def test_a_course_id_stays_the_same_from_version_to_version():
    """Coursework is stored under it, so another rule would lose it."""
    assert course_id_from("PHYS101", *CONTEXT) == "phys101-mqy76nx63u"


def test_one_label_in_two_contexts_is_two_courses():
    contexts = {
        CONTEXT,
        ("https://other.example", "campus", "17"),
        ("https://lms.example", "other", "17"),
        ("https://lms.example", "campus", "18"),
        ("https://lms.example", "campus1", "7"),
        ("https://lms.example", "campu", "s17"),
    }

    assert len({course_id_from("PHYS101", *context) for context in contexts}) == len(contexts)


@given(label=st.text(max_size=80), context=st.text(max_size=20))
def test_whatever_a_platform_says_is_a_course_id_for_all_who_use_it(label, context):
    course_id = course_id_from(label, context)

    assert check_course_id(course_id) == course_id
    assert is_name(course_id)
    check_file_name(course_id, "a course id")
    assert len(course_id) <= 51
    assert len(course_id.encode()) < 255
    assert not re.search(r"[\s{}()/\\&#+%?]", course_id)
    assert parse_group(group_for(course_id, STUDENT)) == (course_id, STUDENT)
    assert grader_for(course_id) == grader_for(course_id).lower()


def test_a_course_that_is_renamed_keeps_the_end_of_its_id():
    before, after = (course_id_from(label, *CONTEXT) for label in ("PHYS101", "Physics, new"))
    other = course_id_from("PHYS101", "elsewhere")

    assert before != after
    assert ending(before) == ending(after) != ending(other)
    assert fingerprint(*CONTEXT).startswith(ending(before)[1:])


@pytest.mark.parametrize(
    ("group", "parsed"),
    [
        ("formgrade-physics", ("physics", INSTRUCTOR)),
        ("nbgrader-physics", ("physics", STUDENT)),
        ("nbgrader-a-b-c", ("a-b-c", STUDENT)),
        ("nbgrader-formgrade-a", ("formgrade-a", STUDENT)),
        ("formgrade-Physics 101", ("Physics 101", INSTRUCTOR)),
        ("nbgrader-", None),
        ("nbgrader", None),
        ("Nbgrader-physics", None),
        ("xnbgrader-physics", None),
        ("staff", None),
        ("", None),
        ("nbgrader-a\nb", None),
        ("nbgrader-" + "x" * LONGEST_COURSE_ID, ("x" * LONGEST_COURSE_ID, STUDENT)),
        ("nbgrader-" + "x" * (LONGEST_COURSE_ID + 1), None),
    ],
)
def test_a_group_says_a_course_and_a_role_or_nothing(group, parsed):
    assert parse_group(group) == parsed


def test_the_exchange_and_the_hub_agree_how_long_a_course_id_may_be():
    assert LONGEST_COURSE_ID == LONGEST_NAME


def test_a_member_of_both_groups_of_a_course_is_its_instructor():
    groups = ["nbgrader-a", "formgrade-a", "nbgrader-b", "staff"]

    assert courses_of(groups) == courses_of(reversed(groups)) == {"a": INSTRUCTOR, "b": STUDENT}


def test_a_grader_is_known_by_its_name_in_any_capitals():
    assert grader_for("CS101") == "grader-cs101"
    assert is_grader("Grader-cs101")
    assert not is_grader("gradergreta")


@pytest.mark.parametrize("course_id", ["a", "CS101", "a.b_c-d", "ψ", "9", "x" * 200])
def test_an_administrator_may_choose_this_course_id(course_id):
    assert check_course_id(course_id) == course_id


@pytest.mark.parametrize(
    "course_id",
    [
        "",
        " ",
        "a b",
        "a/b",
        "a\\b",
        "{a}",
        "(a)",
        "a%b",
        "a&b",
        "a#b",
        "-a",
        ".a",
        "..",
        "🎉",
        "x" * 201,
        "a\n",
        "a\ud800",
        None,
        7,
    ],
)
def test_an_administrator_may_not_choose_this_course_id(course_id):
    with pytest.raises(ValueError, match=r"cannot be a course id\. Use at most 200 letters"):
        check_course_id(course_id)


# -- two courses never share a name


def role_name(course_id: str) -> str:
    (role,) = grader_roles([course_id])
    name = role["name"]
    assert isinstance(name, str)
    return name


def former_role_name(course_id: str) -> str:
    """Of a course whose id JupyterHub does not take in the name of a role, in version 0.1.0."""
    return f"nbexchange-grader-{hashlib.sha256(course_id.encode()).hexdigest()[:20]}"


def names_of(course_id: str) -> set[str]:
    """Its groups, account, roles (also a former one that may still exist), and folder."""
    roles = {role_name(course_id)}
    if "~" in role_name(course_id):
        roles.add(former_role_name(course_id))
    return {
        group_for(course_id, STUDENT),
        group_for(course_id, INSTRUCTOR),
        grader_for(course_id),
        str(folder_of(course_id, Path("/home"))),
        *roles,
    }


def is_course_id(text: str) -> bool:
    try:
        check_course_id(text)
    except ValueError:
        return False
    return True


def twins(course_id: str) -> set[str]:
    """Ids that an attacker would choose to be mistaken for this course."""
    said = {
        name.removeprefix(start)
        for name in names_of(course_id)
        for start in ("nbexchange-grader", "nbexchange-grader-", "grader-", "formgrade-")
    }
    others = {form(text) for text in said for form in (str, str.lower, str.upper)}
    return set(filter(is_course_id, others)) - {course_id}


COURSE_IDS = st.one_of(
    st.sampled_from(["ψ", "Ψ", "a.", "CS101", "x" * 200, "K", "\N{KELVIN SIGN}", "0" * 20]),
    st.text(st.sampled_from("aZ9ψß.-_é"), min_size=1, max_size=30),
    st.text(min_size=1, max_size=LONGEST_COURSE_ID),
).filter(is_course_id)


def check_apart(first: str, second: str) -> None:
    try:
        check_graders([first, second])
    except ValueError:
        assert grader_for(first) == grader_for(second)
    else:
        assert not names_of(first) & names_of(second)


@given(COURSE_IDS)
def test_no_course_can_be_named_so_that_it_is_taken_for_another(course_id):
    for twin in twins(course_id):
        check_apart(course_id, twin)


@given(COURSE_IDS, COURSE_IDS)
def test_two_courses_never_share_a_name_of_any_kind(first, second):
    assume(first != second)

    check_apart(first, second)


@pytest.mark.parametrize(
    ("course_id", "name"),
    [
        ("physics", "nbexchange-grader-physics"),
        ("CS101", "nbexchange-grader-cs101"),
        ("phys101-mqy76nx63u", "nbexchange-grader-phys101-mqy76nx63u"),
        ("0123456789abcdef012", "nbexchange-grader-0123456789abcdef012"),
        ("ψ", "nbexchange-grader~ppath22cfjrotkeambro4mgydfq4bqg4d5pn7c5ecgemkigsolbq"),
        (
            "0123456789abcdef0123",
            "nbexchange-grader~hw6btuwhopte7ghk3wyxwfhhby6wrrncd6v4t7jsgqf7eade2lkq",
        ),
    ],
)
def test_the_role_of_a_course_stays_the_same_from_version_to_version(course_id, name):
    assert role_name(course_id) == name

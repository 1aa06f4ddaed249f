"""Names of courses, of their groups and of their graders."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbexchange.exchange.names import check_file_name
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
    """Coursework is kept under it: another rule would lose it."""
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


def test_who_is_in_both_groups_of_a_course_is_its_instructor():
    groups = ["nbgrader-a", "formgrade-a", "nbgrader-b", "staff"]

    assert courses_of(groups) == courses_of(reversed(groups)) == {"a": INSTRUCTOR, "b": STUDENT}


def test_a_grader_is_known_by_its_name_in_any_capitals():
    assert grader_for("CS101") == "grader-cs101"
    assert is_grader("Grader-cs101")
    assert not is_grader("gradergreta")


@pytest.mark.parametrize("course_id", ["a", "CS101", "a.b_c-d", "ψ", "9", "x" * 200])
def test_an_operator_may_choose_such_a_course_id(course_id):
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
def test_an_operator_may_not_choose_such_a_course_id(course_id):
    with pytest.raises(ValueError, match="cannot be a course id; use letters, digits"):
        check_course_id(course_id)

"""No one student and no one file can take what all need: limits follow from disk and memory."""

from __future__ import annotations

from typing import Any

import pytest
from helm_python import HelmError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chart import helm
from tests.chart.cases import MARIADB, POSTGRESQL_AND_S3
from tests.chart.config import load

GiB = 1024**3
QUOTA, FILE, TRANSFERS = 10_000_000_000, 5_253_530_000, 400
"""The service's own defaults, which are the most."""

S3 = {"storage": {"url": "s3://bucket"}}


def sized(size: str, **options: Any) -> dict[str, Any]:
    return {"persistence": {"size": size}, "config": {"NbExchange": options}}


def spooled(size: str, **options: Any) -> dict[str, Any]:
    values = helm.changed(POSTGRESQL_AND_S3, storage__spoolSize=size)
    return {**values, "config": {"NbExchange": options}}


def refused(values: dict[str, Any], about: list[str]) -> bool:
    """Whether it is, and then about one of these."""
    try:
        helm.render(values)
    except HelmError as error:
        if any(words in str(error) for words in about):
            return True
        raise
    return False


@pytest.mark.parametrize(
    ("size", "quota", "file"),
    [
        ("1Gi", GiB // 10, GiB // 20),
        ("5Gi", GiB // 2, GiB // 4),
        ("10Gi", GiB, GiB // 2),
        ("20G", 2_000_000_000, 1_000_000_000),
        ("1.5Gi", 3 * GiB // 20, 3 * GiB // 40),
        ("100Gi", QUOTA, FILE),
        ("4Ti", QUOTA, FILE),
    ],
)
def test_a_student_keeps_a_tenth_of_the_disk_and_a_file_is_a_twentieth(
    size, quota, file, config_file
):
    app = load(sized(size), config_file)

    assert (app.student_quota, app.max_buffer_size) == (quota, file)


@settings(max_examples=25)
@given(
    size=st.integers(GiB, 1000 * GiB),
    organisation=st.none() | st.integers(1, 2000 * GiB),
    student=st.none() | st.integers(0, 20_000_000_000),
    file=st.none() | st.integers(1, 20_000_000_000),
)
def test_no_student_and_no_file_takes_more_than_half_of_the_disk(
    tmp_path_factory, size, organisation, student, file
):
    options = {
        "organisation_quota": organisation,
        "student_quota": student,
        "max_buffer_size": file,
    }
    given_ = {name: value for name, value in options.items() if value is not None}
    config_file = tmp_path_factory.mktemp("any") / "nbexchange_config.py"
    values = sized(str(size), **given_)
    # An option that nobody set is never refused.
    if refused(values, about=[f"config.NbExchange.{name} is {given_[name]}" for name in given_]):
        return

    app = load(values, config_file)

    assert 0 < app.student_quota <= min(size, app.organisation_quota or size) // 2
    assert app.max_buffer_size <= size // 2
    assert {name: getattr(app, name) for name in given_} == given_


def test_a_student_keeps_a_tenth_of_what_the_organisation_may(config_file):
    app = load(sized("100Gi", organisation_quota=5_000_000_000), config_file)

    assert app.student_quota == 500_000_000


def test_files_in_an_object_store_do_not_count_for_the_disk(config_file):
    app = load({"persistence": {"size": "1Gi"}, **S3}, config_file)

    assert app.student_quota == QUOTA
    # They are written to it first.
    assert app.max_buffer_size == GiB // 20


@pytest.mark.parametrize(("size", "file"), [("", FILE), ("1Gi", GiB // 20), ("200Gi", FILE)])
def test_a_file_is_a_twentieth_of_the_spool(size, file, config_file):
    app = load(spooled(size), config_file)

    assert (app.max_buffer_size, app.student_quota) == (file, QUOTA)


@pytest.mark.parametrize(("size", "spool"), [("1Gi", GiB), ("7Gi", 7 * GiB), ("2Ti", 2048 * GiB)])
def test_uploads_of_one_person_do_not_get_the_pod_evicted(size, spool, config_file):
    app = load(spooled(size), config_file)

    assert app.max_transfers_per_person * app.max_buffer_size < spool


@pytest.mark.parametrize(
    ("memory", "transfers"),
    [("384Mi", 32), ("512Mi", 64), ("1Gi", 192), (1073741824, 192), ("2Gi", TRANSFERS)],
)
def test_transfers_at_a_time_fit_into_the_memory(memory, transfers, config_file):
    app = load({"resources": {"limits": {"memory": memory}}}, config_file)

    assert app.max_transfers == transfers


def test_without_a_limit_of_memory_the_default_stays(config_file):
    app = load({"resources": {"limits": {"memory": None}}}, config_file)

    assert app.max_transfers == TRANSFERS


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a disk too small": (
        sized("500Mi"),
        "persistence.size is 500Mi, which is too small for an exchange. Write at least 1Gi.",
    ),
    "a disk without its unit": (sized("10"), "persistence.size is 10, which is too small"),
    "a spool too small": (spooled("500M"), "storage.spoolSize is 500M, which is too small"),
    "a quota of most of the disk": (
        sized("10Gi", student_quota=QUOTA),
        (
            "config.NbExchange.student_quota is 10000000000, but persistence.size is 10Gi: one "
            "student could fill it. Set config.NbExchange.student_quota to at most 5368709120, or"
            " increase persistence.size to at least 20000000000."
        ),
    ),
    "no quota": (
        sized("10Gi", student_quota=0),
        (
            "config.NbExchange.student_quota is 0 (no limit), but persistence.size is 10Gi: one "
            "student could fill it. Set config.NbExchange.student_quota to at most 5368709120."
        ),
    ),
    "no quota in one organisation": (
        sized("10Gi", quotas={"7": {"student": 0}}),
        "config.NbExchange.quotas.7.student is 0 (no limit), but persistence.size is 10Gi",
    ),
    "a quota of most of the organisation": (
        sized("10Gi", student_quota=600_000_000, organisation_quota=1_000_000_000),
        "student_quota is 600000000, but config.NbExchange.organisation_quota is 1000000000: one",
    ),
    "a usual quota of most of one organisation": (
        sized("10Gi", quotas={"7": {"organisation": 1_000_000_000}}),
        (
            "Set config.NbExchange.quotas.7.student to at most 500000000, or increase "
            "config.NbExchange.quotas.7.organisation to at least 2147483648."
        ),
    ),
    "a usual quota of most of one organisation in an object store": (
        helm.changed(
            POSTGRESQL_AND_S3, config__NbExchange__quotas={"7": {"organisation": 5_000_000_000}}
        ),
        (
            "config.NbExchange.student_quota is 10000000000, but "
            "config.NbExchange.quotas.7.organisation is 5000000000: one student could fill it."
        ),
    ),
    "an organisation larger than the disk": (
        sized("10Gi", organisation_quota=11_000_000_000),
        (
            "config.NbExchange.organisation_quota is 11000000000, but persistence.size is 10Gi, "
            "of which a twentieth stays free. Write at most 10200547328, or increase "
            "persistence.size to at least 11578947369."
        ),
    ),
    "one organisation larger than the disk": (
        sized("10Gi", quotas={"7": {"organisation": 11_000_000_000}}),
        "config.NbExchange.quotas.7.organisation is 11000000000, but persistence.size is 10Gi",
    ),
    "a file of most of the disk": (
        sized("10Gi", max_buffer_size=FILE + GiB),
        (
            "config.NbExchange.max_buffer_size is 6327271824, but persistence.size is 10Gi: one "
            "file could take more than half of it. Write at most 5368709120, or increase "
            "persistence.size to at least 12654543648."
        ),
    ),
    "a file of most of the disk on the way to an object store": (
        {**sized("1Gi", max_buffer_size=GiB), **S3},
        "config.NbExchange.max_buffer_size is 1073741824, but persistence.size is 1Gi",
    ),
    "a file of most of the spool": (
        spooled("5Gi", max_buffer_size=FILE),
        "config.NbExchange.max_buffer_size is 5253530000, but storage.spoolSize is 5Gi",
    ),
    "files of one person that evict the pod": (
        spooled("50Gi", max_buffer_size=FILE),
        (
            "storage.spoolSize is 50Gi, but one user may upload 16 files of 5253530000 bytes at"
            " a time, and Kubernetes would evict the pod. Lower config.NbExchange.max_buffer_size"
            " or config.NbExchange.max_transfers_per_person, or increase storage.spoolSize to at "
            "least 84056480000."
        ),
    ),
    "any number of files of one person": (
        spooled("50Gi", max_transfers_per_person=0),
        "one user may upload any number of files of 2684354560 bytes at a time",
    ),
    "a reserve that the service would not keep": (
        sized("10Gi", min_free_space=1_000_000_000),
        (
            "config.NbExchange.min_free_space is 1000000000, but persistence.size is 10Gi, of "
            "which the service keeps at most a twentieth free. Write at most 536870912, or "
            "increase persistence.size to at least 20000000000."
        ),
    ),
    "no reserve for SQLite": (
        sized("10Gi", min_free_space=0),
        "config.NbExchange.min_free_space is 0, but the SQLite database is on the disk",
    ),
    "memory too small": (
        {"resources": {"limits": {"memory": "256Mi"}}},
        (
            "resources.limits.memory is 256Mi, which is too little for an exchange. Write at "
            "least 384Mi."
        ),
    ),
    "memory in no unit": ({"resources": {"limits": {"memory": "1GB"}}}, "1GB is not a size."),
    "more transfers than the memory is for": (
        {"config": {"NbExchange": {"max_transfers": 400}}},
        (
            "config.NbExchange.max_transfers is 400, but resources.limits.memory is 1Gi, which is"
            " enough for 192. Write at most 192, or increase resources.limits.memory to at least "
            "1856Mi."
        ),
    ),
    "any number of transfers": (
        {"config": {"NbExchange": {"max_transfers": 0}}},
        "config.NbExchange.max_transfers is 0 (any number), but resources.limits.memory is 1Gi",
    ),
    "a quota where the chart does not look": (
        {"extraConfig": {"a": "c['NbExchange']['student_quota'] = 0"}},
        "NbExchange.student_quota is set outside config.NbExchange",
    ),
    "a quota of all programs": (
        {"config": {"Application": {"student_quota": 0}}},
        "Set config.NbExchange.student_quota instead.",
    ),
}


@pytest.mark.parametrize(("values", "words"), REFUSED.values(), ids=REFUSED)
def test_sizes_that_do_not_go_together_are_refused_with_what_to_write(values, words):
    with pytest.raises(HelmError) as refusal:
        helm.render(values)

    assert words in str(refusal.value)


ACCEPTED: dict[str, dict[str, Any]] = {
    "half of the disk": sized("10Gi", student_quota=5 * GiB, max_buffer_size=5 * GiB),
    "the disk that was named": sized("20000000000", student_quota=QUOTA),
    "the organisation's share of it": sized("11578947369", organisation_quota=11_000_000_000),
    "the reserve that was named": sized("20000000000", min_free_space=1_000_000_000),
    "no reserve beside a database server": {**MARIADB, **sized("10Gi", min_free_space=0)},
    "the spool that was named": spooled("84056480000", max_buffer_size=FILE),
    "fewer files of one person": spooled("50Gi", max_buffer_size=FILE, max_transfers_per_person=8),
    "the memory that was named": {
        "resources": {"limits": {"memory": "1856Mi"}},
        "config": {"NbExchange": {"max_transfers": 400}},
    },
    "no quota in a bucket": helm.changed(POSTGRESQL_AND_S3, config__NbExchange__student_quota=0),
    "quotas of another class": {"config": {"Mine": {"quotas": {}}}},
    "a quota that is only compared": {
        "extraConfig": {"a": "assert c.NbExchange.student_quota == 3"}
    },
}


@pytest.mark.parametrize("values", ACCEPTED.values(), ids=ACCEPTED)
def test_sizes_that_go_together_are_taken(values):
    assert helm.render(values)

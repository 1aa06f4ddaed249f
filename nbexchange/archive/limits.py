"""How much an archive may ask of its reader, and what was found in one."""

from dataclasses import dataclass
from pathlib import Path

from traitlets import HasTraits, Integer

MIB = 1024 * 1024


@dataclass(frozen=True)
class ArchiveLimits:
    """How much an archive may ask of whoever reads it; sizes and lengths are in bytes."""

    entries: int = 10_000  # files and folders, those included that only occur in a path
    expanded_size: int = 10 * 1024 * MIB
    ratio: int = 200  # expanded to compressed; zeros reach 1028
    ratio_floor: int = 100_000_000  # expanded bytes that the ratio does not count: as many as
    # nbgrader's CourseDirectory.max_dir_size lets a submission have, however repetitive it is
    depth: int = 64
    name_length: int = 255  # of one component
    path_length: int = 2048
    all_paths_length: int = 2 * MIB  # together, because the names are what is kept in memory


@dataclass(frozen=True)
class Contents:
    """What an archive holds."""

    entries: int  # files and folders that it lists
    expanded_size: int  # of the files
    notebooks: tuple[str, ...]  # their paths, sorted, as nbgrader's find_all_notebooks
    timestamp: str | None  # what timestamp.txt says, when it is one short printable line


@dataclass(frozen=True)
class Member:
    """Something to pack: a file on disk or its bytes, or with `None` a folder."""

    name: str
    source: Path | bytes | None


class ArchiveOptions(HasTraits):
    """Options about how much one archive may unpack to."""

    max_entries = Integer(
        ArchiveLimits().entries, help="The most files and folders in one archive.", min=1
    ).tag(config=True)

    max_expanded_size = Integer(
        ArchiveLimits().expanded_size,
        help="The most that one archive may unpack to, in bytes.",
        min=1,
    ).tag(config=True)

    max_ratio = Integer(
        ArchiveLimits().ratio,
        help="The most bytes that one compressed byte may become, beyond `ratio_floor`.",
        min=1,
    ).tag(config=True)

    ratio_floor = Integer(
        ArchiveLimits().ratio_floor,
        help="""
        Bytes that one archive may unpack to whatever `max_ratio` is: a notebook that printed one
        line too often is ordinary work. The default is that of nbgrader's
        CourseDirectory.max_dir_size, which counts in units of 1,000 bytes; raise both together.
        """,
        min=0,
    ).tag(config=True)

    def archive_limits(self) -> ArchiveLimits:
        return ArchiveLimits(
            entries=self.max_entries,
            expanded_size=self.max_expanded_size,
            ratio=self.max_ratio,
            ratio_floor=self.ratio_floor,
        )


USUAL = ArchiveLimits()

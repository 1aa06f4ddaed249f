"""How much an archive may ask of its reader, and what was found in one."""

from dataclasses import dataclass
from pathlib import Path

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


USUAL = ArchiveLimits()

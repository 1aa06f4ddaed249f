"""Options of the data directory and the store."""

from __future__ import annotations

import os
from pathlib import Path

from traitlets import HasTraits, Unicode, default

from nbexchange.errors import Misconfigured
from nbexchange.storage import Storage
from nbexchange.storage.disk import DiskStorage
from nbexchange.traits import SecretDict


class StorageOptions(HasTraits):
    base_storage_location = Unicode(
        help="""
        The data directory. It contains the files unless storage_url is set, and the database unless
        db_url is set.
        Default: $NBEXCHANGE_DATA, else nbexchange in $XDG_DATA_HOME, else
        ~/.local/share/nbexchange. Back it up.
        """,
    ).tag(config=True)

    @default("base_storage_location")
    def _data_directory(self) -> str:
        data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return os.environ.get("NBEXCHANGE_DATA") or str(Path(data_home) / "nbexchange")

    storage_url = Unicode(
        help="""
        The object store that holds the files: s3://bucket/prefix, gs://bucket/prefix or
        az://container/prefix. The bucket must exist. Needs the extra `objects`.
        Default: $NBEX_STORAGE_URL, else the files are in base_storage_location. Large uploads are
        written to base_storage_location/spool before they are sent.
        """,
    ).tag(config=True)

    @default("storage_url")
    def _storage_url(self) -> str:
        return os.environ.get("NBEX_STORAGE_URL", "")

    storage_options = SecretDict(
        help="""
        How to access the object store of storage_url, with the names of obstore's options:
        {"endpoint": "https://s3.example.org", "region": "...", "access_key_id": "...",
        "secret_access_key": "..."} for S3, and "client_options" for its HTTP client. Options that
        are missing here are taken from the environment, as usual (AWS_ACCESS_KEY_ID, ...), or from
        the role of the machine.
        """,
    ).tag(config=True)

    def make_storage(self) -> Storage:
        self.make_data_directory()
        directory = Path(self.base_storage_location).absolute()
        if not self.storage_url:
            return DiskStorage(directory)
        try:
            from nbexchange.storage.objects import ObjectStorage
        except ImportError as error:
            raise Misconfigured(
                "storage_url needs the library obstore. Install nbexchange with its extra "
                "[objects]."
            ) from error
        return ObjectStorage.from_url(self.storage_url, self.storage_options, directory / "spool")

    def make_data_directory(self) -> None:
        directory = Path(self.base_storage_location)
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise Misconfigured(
                f"Cannot create the data directory {directory}: {error.strerror}. Set "
                "base_storage_location to a directory that the service may write."
            ) from error

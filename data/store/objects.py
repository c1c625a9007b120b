"""A prefix in a bucket, through obstore: each call is one request, tried again by obstore where that can help.

obstore is imported where a bucket is used: a store in a folder does without.
"""

import contextlib
import errno
import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import RequestError, StorageError

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

RETRIES, RETRIES_S = 10, 120
"""Of a request that failed in a way that may pass; the pauses between them add up to a minute."""

FIRST_RETRIES = 3
"""Of the first request, where a wrong address is likelier than a failing network."""

# obstore has classes for neither, or not for every kind of request.
DENIED = ("403 Forbidden", "401 Unauthorized")
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")

_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_SERVICE_ACCOUNT (its file) or GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_ENDPOINT = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL", "az": "AZURE_STORAGE_ENDPOINT"}
"""The variables of the environment that obstore reads, by the URL's scheme (its S3Config, GCSConfig, AzureConfig)."""


class Objects:
    """The objects below a URL, by their names below it, with '/'. A put is atomic.

    Every method raises RequestError where the bucket is missing or denies access, StorageError where it can't be
    reached or fails, FileNotFoundError where the one object is not there.
    """

    def __init__(self, url: str, *, first: bool = False) -> None:
        """url: s3://bucket/prefix; endpoint and credentials come from the environment. first: give up soon."""
        self.url = url
        self.store = _connect(url, FIRST_RETRIES if first else RETRIES)

    def __str__(self) -> str:
        return self.url

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        try:
            self.head(name)
        except FileNotFoundError:
            return False
        return True

    def head(self, name: str) -> "ObjectMeta":
        """Size in bytes, time of the last put by the server's clock, and more."""
        import obstore

        with self.errors(name):
            return obstore.head(self.store, name)

    def read(self, name: str) -> bytes:
        """The whole content."""
        import obstore

        with self.errors(name):
            return bytes(obstore.get(self.store, name).bytes())

    def sha256(self, name: str) -> tuple[int, str]:
        """Size in bytes and hex digest, read in bounded memory."""
        import obstore

        digest, size = hashlib.sha256(), 0
        with self.errors(name):
            for piece in obstore.get(self.store, name).stream():
                digest.update(piece)
                size += len(piece)
        return size, digest.hexdigest()

    def write(self, name: str, data: bytes | Path) -> None:
        """Put an object, or a file's content, over what is there."""
        import obstore

        with self.errors(name):
            obstore.put(self.store, name, data)

    def append(self, name: str, data: bytes) -> None:
        """Put an object again, with more; for one writer."""
        try:
            before = self.read(name)
        except FileNotFoundError:
            before = b""
        self.write(name, before + data)

    def create(self, name: str, data: bytes) -> None:
        """Put an object unless there is one (If-None-Match: *): FileExistsError. The first wins."""
        import obstore

        with self.errors(name):
            obstore.put(self.store, name, data, mode="create", use_multipart=False)

    def delete(self, name: str) -> None:
        """Delete an object; some services don't say whether there was one."""
        import obstore

        with self.errors(name):
            obstore.delete(self.store, name)

    def names(self, folder: str) -> list[str]:
        """Of the objects directly below a name, sorted."""
        import obstore

        with self.errors(folder):
            listed = obstore.list_with_delimiter(self.store, folder)
        return sorted(item["path"].rpartition("/")[2] for item in listed["objects"])

    def below(self, folder: str = "") -> Iterator[str]:
        """Names of all objects below a name."""
        import obstore

        with self.errors(folder):
            for several in obstore.list(self.store, folder or None):
                yield from (item["path"] for item in several)

    @contextlib.contextmanager
    def errors(self, name: str) -> Iterator[None]:
        """Within it obstore's errors become those of this class."""
        from obstore import exceptions

        where = f"{self.url}/{name}" if name else self.url
        scheme = self.url.partition("://")[0]
        try:
            yield
        except exceptions.AlreadyExistsError as error:
            raise FileExistsError(errno.EEXIST, "there is such an object", where) from error
        except (FileNotFoundError, exceptions.BaseError) as error:
            if any(code in str(error) for code in DENIED):
                raise RequestError(
                    f"{where}: access was denied ({_short(error)}). Give the credentials of somebody who may list, "
                    f"read and write there, as {_CREDENTIALS[scheme]}"
                ) from error
            if any(code in str(error) for code in NO_BUCKET):
                raise RequestError(
                    f"{where}: there is no such bucket. Make it, or look at the name and at {_ENDPOINT[scheme]}"
                ) from error
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(errno.ENOENT, "there is no such object", where) from error
            raise StorageError(
                f"{where}: the object storage can't be reached or failed ({_short(error)}). Look at the network and at "
                f"{_ENDPOINT[scheme]}, then run the same command again"
            ) from error


def _connect(url: str, retries: int) -> "ObjectStore":
    try:
        from obstore import exceptions
        from obstore.store import from_url
    except ImportError as error:
        raise RequestError(f"{url}: object storage needs obstore: pip install 'distill[objects]'") from error
    retry: Any = {"max_retries": retries, "retry_timeout": timedelta(seconds=RETRIES_S)}
    try:
        return from_url(url, retry_config=retry)
    except exceptions.BaseError as error:
        raise RequestError(
            f"{url}: obstore refuses it ({_short(error)}). Look at the URL and the environment"
        ) from error


def _short(error: Exception) -> str:
    """Without the answer's body and obstore's own view of it."""
    return str(error).partition("\n")[0].partition("<?xml")[0].strip(" :")[:300]

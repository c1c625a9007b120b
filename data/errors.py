"""The two ways a command fails, by who can mend it. The command line turns them into exit statuses (docs/store.md)."""


class RequestError(ValueError):
    """The request cannot be served as given: exit status 2.

    The message is one or two sentences: what, where, what was expected, what to do.
    """


class WorkLeftError(RuntimeError):
    """Something failed or was left undone: exit status 1.

    The message says what is left, and that the same command goes on.
    """


class DiskFullError(WorkLeftError):
    """There is no room for what was to be written: going on with other work would not help."""


class StorageError(WorkLeftError, OSError):
    """A bucket can't be reached, or failed: for whoever tries again an error like a disk's, with all said in it."""

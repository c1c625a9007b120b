"""An S3 server for tests, and a look at what is in its buckets."""

import contextlib
import logging
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any
from unittest import mock

from data.store.objects import Objects


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """moto's server in a thread of this process; yields its address.

    It puts one object at a time: S3's conditional put is atomic, and moto's looks first and puts then, so that two of
    many can both find nothing there.
    """
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    lock, put_object = threading.Lock(), S3Response.put_object

    def put_alone(self: S3Response) -> Any:
        with lock:
            return put_object(self)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line on standard error for every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    with mock.patch.object(S3Response, "put_object", put_alone):
        server.start()
        host, port = server.get_host_and_port()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.stop()


def environment(endpoint: str) -> dict[str, str]:
    """What a user sets."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }


def new_bucket(endpoint: str) -> str:
    """A new bucket's URL."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}", method="PUT"), timeout=60) as answer:
        assert answer.status == 200
    return f"s3://{name}"


def contents(url: str) -> dict[str, bytes]:
    """Every object below a URL."""
    objects = Objects(url)
    return {name: objects.read(name) for name in objects.below()}

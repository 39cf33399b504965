"""An S3 protocol server in this process, with faults by rule and a log of the requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from moto.backends import get_backend
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

_BODIES = {
    403: b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
    500: b"<Error><Code>InternalError</Code><Message>try again</Message></Error>",
    503: b"<Error><Code>ServiceUnavailable</Code><Message>busy</Message></Error>",
}

Rule = Callable[[str, str], "int | float | None"]


@dataclass
class S3Server:
    """``rule(method, path)`` returns a status to answer instead (int), seconds to wait first (float), or None."""

    url: str = ""
    rule: Rule | None = None
    requests: list[tuple[str, str, int]] = field(default_factory=list)  # method, path, status that was injected or 0

    def wrap(self, app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        def handle(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            fault = self.rule(method, path) if self.rule else None
            self.requests.append((method, path, fault if isinstance(fault, int) else 0))
            if isinstance(fault, float):
                time.sleep(fault)
            elif fault:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start_response(f"{fault} Injected", [("Content-Type", "application/xml")])
                return [] if method == "HEAD" else [_BODIES[fault]]
            return app(environ, start_response)

        return handle

    def bucket(self, name: str) -> str:
        """A new bucket; returns its s3:// URL."""
        client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1")
        client.create_bucket(Bucket=name)
        client.close()
        return f"s3://{name}"

    def fill(self, bucket: str, files: Iterable[tuple[str, bytes]]) -> None:
        """Put many files there without a request for each."""
        backend = get_backend("s3")["123456789012"]["aws"]
        for key, data in files:
            backend.put_object(bucket, key, data)


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *args: object) -> None: ...


ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "2",  # botocore's own; each failing request would take it half a minute
}


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server for the block. Clients find it through AWS_ENDPOINT_URL and ENVIRONMENT, which the caller sets."""
    server = S3Server()
    app = DomainDispatcherApplication(create_backend_app)
    http = make_server("127.0.0.1", 0, server.wrap(app), threaded=True, request_handler=_Quiet)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()

"""What integration tests share: an object store of a run's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URL of a bucket on an S3 server on loopback; its address and keys are in the environment, for workers too."""
    import boto3
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    name = f"b{uuid.uuid4().hex[:8]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "play")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "play")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # File systems are kept by their arguments, and the address is none of them: another server's would be found.
        S3FileSystem.clear_instance_cache()
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket=name)
        yield f"s3://{name}"
        S3FileSystem.clear_instance_cache()
    server.stop()

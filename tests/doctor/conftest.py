"""A real Redis that a test may set up badly, and certificates. Ray is imported by the examination."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import tests.ray_settings  # noqa: F401 - before Ray is imported
from cluster.local.redis_server import RedisServer
from tests.state.conftest import free_port, wait_until_ready

MakeCertificate = Callable[[float], tuple[Path, Path]]
"""Makes a certificate that expires in so many days, and its key; their files."""


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis", free_port())
    server.start()
    wait_until_ready(server)
    yield server
    server.stop()


@pytest.fixture
def make_certificate(tmp_path: Path) -> MakeCertificate:
    def make(days: float) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
        ends = datetime.now(UTC) + timedelta(days=days)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(ends - timedelta(days=90))
            .not_valid_after(ends)
            .sign(key, hashes.SHA256())
        )
        paths = tmp_path / "tls.crt", tmp_path / "tls.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return paths

    return make

"""``file_certificate`` and ``served_certificate``: when certificates expire. Nothing is verified: that is the clients'
part, and an expired one is what is looked for."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from cryptography import x509

from cluster.doctor.facts import CertificateFacts

ANSWER_S = 5.0


def file_certificate(path: str) -> CertificateFacts:
    """Returns the facts about the first certificate in the file ``path``, in PEM. If it cannot be read, the facts have
    the fault."""
    try:
        return CertificateFacts(path, _expiry(x509.load_pem_x509_certificate(Path(path).read_bytes())))
    except OSError as error:
        return CertificateFacts(path, None, f"{error.strerror}")
    except ValueError:
        return CertificateFacts(path, None, "it is no certificate in PEM")


def served_certificate(host: str, port: int) -> CertificateFacts:
    """Returns the facts about the certificate of a TLS server. If TLS does not begin within ANSWER_S seconds, the facts
    have the fault."""
    place = f"{host}:{port}"
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=ANSWER_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            found = secure.getpeercert(binary_form=True)
        assert found is not None, "a server has a certificate"
        return CertificateFacts(place, _expiry(x509.load_der_x509_certificate(found)))
    except (OSError, ValueError) as error:
        return CertificateFacts(place, None, f"TLS does not begin: {type(error).__name__}")


def _expiry(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()

"""``python -m k8s.secrets``: prints the Secrets that the manifests name, with new random values, for kubectl.

They are never written to a file: ``python -m k8s.secrets --tls | kubectl -n manta apply -f -``.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

HOST = "redis:6379"
CA_FILE = "/etc/redis-ca/ca.crt"
"""Where the routers' pods have the certificate of Redis' authority (k8s/components/redis-tls)."""

RIGHTS = {
    "manta": "resetchannels ~manta:* +@read +@write +@scripting +@connection +time -@dangerous",
    # The tables of the GCS, and a key that Ray deletes at its start to find the primary of a Redis Cluster.
    "ray": "resetchannels ~RAY* ~DUMMY +@read +@write +@connection -@dangerous +info",
}
"""The rights of the users of Redis: the routers' of docs/operations.md, and those of Ray's fault tolerance."""

_PASSWORD = re.compile(r"#([0-9a-f]{64})(?= |$)")


def users_acl(passwords: Mapping[str, str], former: str = "") -> str:
    """Returns the ACL file of Redis: the users of RIGHTS with ``passwords``, and ``probe``, who may only ping.

    ``former`` is the ACL file until now: the newest password of each of its users stays valid beside the new one.
    """
    lines = ["user default off", "user probe on nopass resetkeys resetchannels -@all +ping"]
    for user, rights in RIGHTS.items():
        hashes = [hashlib.sha256(passwords[user].encode()).hexdigest(), *_newest(former, user)]
        lines.append(f"user {user} on {' '.join(f'#{each}' for each in hashes)} {rights}")
    return "\n".join(lines) + "\n"


def redis_url(password: str, *, tls: bool) -> str:
    """Returns the URL by which routers reach the Redis of k8s/base as the user ``manta``."""
    query = f"?ssl_ca_certs={CA_FILE}" if tls else ""
    return f"{'rediss' if tls else 'redis'}://manta:{password}@{HOST}/0{query}"


def redis_secrets(*, tls: bool, former: str = "") -> list[dict[str, Any]]:
    """Returns the Secrets with new passwords of Redis. ``former``: see ``users_acl``."""
    passwords = {user: secrets.token_hex(32) for user in RIGHTS}
    return [
        _secret("manta-redis-acl", {"users.acl": users_acl(passwords, former)}),
        _secret("manta-redis-ray", {"password": passwords["ray"]}),
        _secret("manta-state", {"redis-url": redis_url(passwords["manta"], tls=tls)}),
    ]


def first_secrets() -> list[dict[str, Any]]:
    """Returns the Secrets that are made once: Ray's token, and the secret of stored texts, which must not change."""
    return [
        _secret("manta-ray-token", {"auth_token": secrets.token_hex(32)}),
        _secret("manta-review", {"review-secret": secrets.token_hex(32)}),
    ]


def _secret(name: str, values: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "manta"}},
        "type": "Opaque",
        "stringData": dict(values),
    }


def _newest(acl: str, user: str) -> list[str]:
    """Returns the digest of the first password of ``user`` in an ACL file; nothing if there is none."""
    for line in acl.splitlines():
        if line.startswith(f"user {user} "):
            return _PASSWORD.findall(line)[:1]
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the Secrets. ``arguments`` None: those of the process. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m k8s.secrets", description="Prints new Secrets for kubectl.")
    parser.add_argument("--tls", action="store_true", help="the routers reach Redis by TLS, as in overlays/prod")
    parser.add_argument(
        "--rotate",
        type=Path,
        metavar="ACL",
        help="new passwords of Redis alone; those of this ACL file, the present one, stay valid beside them",
    )
    options = parser.parse_args(arguments)
    if options.rotate is None:
        made = first_secrets() + redis_secrets(tls=options.tls)
    else:
        made = redis_secrets(tls=options.tls, former=options.rotate.read_text(encoding="utf-8"))
    print(yaml.safe_dump_all(made, sort_keys=False), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the cluster adds to access: sources of key sets, a first admin key, and prices that fit the tiers."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.access.jwks_sources import MAX_JWKS_BYTES, FileJwks, UrlJwks
from cluster.config import MantaConfig
from cluster.local.admin_key import with_admin_key
from cluster.optional_tiers import without_tiers

DEV = Path(__file__).resolve().parents[2] / "deployments" / "dev.yaml"


class Issuer(BaseHTTPRequestHandler):
    """Answers by the path: a key set, one too large, or a redirect."""

    def do_GET(self) -> None:
        self.send_response(302 if self.path == "/moved" else 200 if self.path in ("/jwks", "/large") else 404)
        if self.path == "/moved":
            self.send_header("location", "/jwks")
        self.end_headers()
        if self.path == "/jwks":
            self.wfile.write(b"{}")
        elif self.path == "/large":
            self.wfile.write(b" " * (MAX_JWKS_BYTES + 1))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Issuer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_key_set_is_read_from_its_address(issuer: str) -> None:
    assert await UrlJwks(f"{issuer}/jwks").read() == b"{}"


@pytest.mark.parametrize("path", ["/moved", "/large", "/none"])
async def test_a_redirect_a_large_body_and_an_error_are_no_key_set(issuer: str, path: str) -> None:
    with pytest.raises(OSError, match="key set"):
        await UrlJwks(f"{issuer}{path}").read()


async def test_a_key_set_is_read_from_its_file_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    for text in ("{}", '{"keys": []}'):
        path.write_text(text)
        assert await FileJwks(path).read() == text.encode()
    path.write_text(" " * (MAX_JWKS_BYTES + 1))
    with pytest.raises(OSError, match="bytes"):
        await FileJwks(path).read()


def dev() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(DEV.read_text(encoding="utf-8"))
    return found


def test_a_config_with_an_admin_key_stays_as_it_is() -> None:
    config = dev()
    assert with_admin_key(config) == (config, None)


def test_a_config_without_one_gets_the_digest_of_a_new_key() -> None:
    config = dev()
    keys = config["applications"][0]["args"]["router"]["keys"]
    keys[:] = [key for key in keys if key.get("role") != "admin"]
    made, key = with_admin_key(config)
    assert key is not None
    added = made["applications"][0]["args"]["router"]["keys"][-1]
    assert added["key"] == f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    assert added["role"] == "admin"
    assert key not in str(made)
    MantaConfig.model_validate(made["applications"][0]["args"])


def test_every_tier_has_a_price_if_one_has() -> None:
    arguments = dev()["applications"][0]["args"]
    config = MantaConfig.model_validate(arguments)
    assert without_tiers(config, ["general"]).router.prices.tiers.keys() == {
        "fast",
        "balanced",
        "frontier",
        "embeddings",
    }
    del arguments["router"]["prices"]["tiers"]["balanced"]
    with pytest.raises(ValueError, match="balanced has no price"):
        MantaConfig.model_validate(arguments)

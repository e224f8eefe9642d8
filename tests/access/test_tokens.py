"""JSON Web Tokens: what is accepted, and every forgery that is not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from router.access.json_web_token import key_set_of, principal_in
from router.access.token_verifier import TokenVerifier
from router.config.access import AccessConfig, JwtConfig
from router.errors import AuthenticationError
from router.principal import Principal
from tests.access.service import Service, config
from tests.access.tokens import SIGNING, Published, claims, token
from tests.router.loaded import LoadedBackend
from tests.state.clock import VirtualClock

JWT = JwtConfig(issuer="https://issuer", audience="manta", algorithms=("RS256", "ES256"), jwks_file="jwks.json")
OTHER = RSAKey.generate_key(2048, {"kid": "k1", "use": "sig", "alg": "RS256"})
NEXT = ECKey.generate_key("P-256", {"kid": "k2", "use": "sig", "alg": "ES256"})


def encoded(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def forged(header: dict[str, Any], now: float, secret: bytes | None = None) -> str:
    """A token made without a library, signed by HMAC with ``secret``, or not at all."""
    signed = f"{encoded(header)}.{encoded(claims(now))}"
    signature = b"" if secret is None else hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def service(clock: VirtualClock) -> AsyncIterator[Service]:
    made = Service(config(access=AccessConfig(jwt=JWT)), clock=clock, jwks=Published(SIGNING))
    async with made.running():
        yield made


async def test_a_right_token_is_its_tenants(service: Service, clock: VirtualClock) -> None:
    answer = await service.ask(token(clock.now(), team="search", feature="chat"))
    assert answer.status_code == 200, answer.text
    async with service.client() as http:
        row = (await http.get("/admin/v1/usage", params={"group_by": "key,team,feature"})).json()["data"][0]
    assert (row["tenant"], row["team"], row["feature"], row["key"]) == ("acme", "search", "chat", "jwt")


NOW = VirtualClock().now()
PEM = SIGNING.as_pem(private=False)


WRONG = {
    "algorithm none": forged({"alg": "none", "kid": "k1"}, NOW),
    "algorithm none in other letters": forged({"alg": "nOnE", "kid": "k1"}, NOW),
    "HMAC with the public key as PEM": forged({"alg": "HS256", "kid": "k1"}, NOW, PEM),
    "HMAC with the public key as JSON": forged(
        {"alg": "HS256", "kid": "k1"}, NOW, json.dumps(SIGNING.as_dict(private=False)).encode()
    ),
    "HMAC signature under the name of RSA": forged({"alg": "RS256", "kid": "k1"}, NOW, PEM),
    "HMAC with an empty file as the key": forged({"alg": "HS256", "kid": "../../../../dev/null"}, NOW, b""),
    "key id that walks to a file": token(NOW, header={"alg": "RS256", "kid": "../../../../etc/passwd"}),
    "unknown key id": token(NOW, header={"alg": "RS256", "kid": "unknown"}),
    "signed by another key": token(NOW, OTHER),
    "key at an address of the token": token(NOW, OTHER, {"alg": "RS256", "kid": "k1", "jku": "https://evil/jwks.json"}),
    "key in the token": token(NOW, OTHER, {"alg": "RS256", "kid": "k1", "jwk": OTHER.as_dict(private=False)}),
    "another audience": token(NOW, aud="other"),
    "list of other audiences": token(NOW, aud=["other"]),
    "no audience": token(NOW, aud=None),
    "another issuer": token(NOW, iss="https://evil"),
    "no issuer": token(NOW, iss=None),
    "expired": token(NOW, exp=int(NOW) - 31),
    "no expiry": token(NOW, exp=None),
    "expiry that is no number": token(NOW, exp="soon"),
    "not valid yet": token(NOW, nbf=int(NOW) + 31),
    "issued in the future": token(NOW, iat=int(NOW) + 31),
    "no tenant": token(NOW, tenant=None),
    "line break in the tenant": token(NOW, tenant="a\nb"),
    "list of tenants": token(NOW, tenant=["acme"]),
    "role admin that no token may claim": token(NOW, manta_role="admin"),
    "unknown role": token(NOW, manta_role="root"),
    "unknown right": token(NOW, manta_rights={"everything": True}),
    "rights that are no object": token(NOW, manta_rights=["fast"]),
    "signature too long": token(NOW) + "x",
    "signature changed": token(NOW)[:-4] + "AAAA",
    "no signature": token(NOW).rpartition(".")[0] + ".",
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_a_wrong_token_is_a_401_that_does_not_say_why(service: Service, wrong: str) -> None:
    refused = await service.ask(wrong)
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert refused.json()["error"]["message"] == "Incorrect API key provided."


async def test_a_token_ends_with_its_expiry_though_it_is_remembered(service: Service, clock: VirtualClock) -> None:
    bearer = token(clock.now(), exp=int(clock.now()) + 2)
    assert (await service.ask(bearer)).status_code == 200
    clock.advance(2 + JWT.leeway_s)
    assert (await service.ask(bearer)).status_code == 401


async def test_rights_of_a_token_hold(service: Service, clock: VirtualClock) -> None:
    bearer = token(clock.now(), manta_rights={"tiers": ["fast"]})
    assert (await service.ask(bearer)).status_code == 200
    refused = await service.ask(bearer, model="frontier")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "tier_not_allowed")


@pytest.mark.parametrize(
    ("common", "claim", "status"), [("none", "up", 429), ("any", "none", 429), ("up", "any", 200), ("up", None, 200)]
)
async def test_a_token_narrows_where_requests_spill_and_never_widens_it(
    clock: VirtualClock, common: str, claim: str | None, status: int
) -> None:
    settings = config(access=AccessConfig(jwt=JWT), admission={"spill": common})
    backend = LoadedBackend()
    backend.wait_s = 60.0
    made = Service(settings, backend, clock, Published(SIGNING))
    async with made.running():
        bearer = token(clock.now(), manta_rights={"spill": claim})
        talk = {"prompt": None, "messages": [{"role": "user", "content": "Hi"}], "service_tier": "priority"}
        assert (await made.ask(bearer, "/v1/chat/completions", **talk)).status_code == status


async def test_a_new_key_of_the_issuer_is_read_after_the_first_token_that_names_it(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.access.token_verifier.MIN_REFRESH_S", 0.01)
    source = Published(SIGNING)
    verifier = TokenVerifier(JWT, source, clock)
    await verifier.start()
    try:
        source.keys = (NEXT,)
        bearer = token(clock.now(), NEXT, {"alg": "ES256", "kid": "k2"})
        with pytest.raises(AuthenticationError):
            verifier.verify(bearer)
        await asyncio.wait_for(source.read_again.wait(), 5)
        await asyncio.sleep(0)
        assert verifier.verify(bearer).principal is not None
        with pytest.raises(AuthenticationError):
            verifier.verify(token(clock.now()))  # by the key that is no longer published
    finally:
        await verifier.close()


def test_symmetric_keys_of_a_set_are_never_used() -> None:
    secret = OctKey.generate_key(256, {"kid": "s"}).as_dict(private=True)
    with pytest.raises(ValueError, match="no usable key"):
        key_set_of({"keys": [secret]})
    mixed = key_set_of({"keys": [secret, SIGNING.as_dict(private=False)]})
    assert [key.kid for key in mixed] == ["k1"]


@pytest.mark.parametrize(
    "malformed",
    [
        {"kty": "RSA", "kid": "bad"},
        {"kty": "RSA", "kid": "bad", "n": "!", "e": "AQAB"},
        {"kty": "EC", "kid": "bad", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "kid": "bad", "crv": "P-999", "x": "AA", "y": "AA"},
        {"kty": ["RSA"]},
        "text",
    ],
)
def test_a_malformed_key_of_a_set_is_left_out_alone(malformed: object) -> None:
    found = key_set_of({"keys": [malformed, SIGNING.as_dict(private=False)]})
    assert [key.kid for key in found][-1] == "k1"
    assert jwt.decode(token(NOW), found).claims["tenant"] == "acme"


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, {"keys": [1]}, {"keys": [{"kty": "RSA"}]}])
def test_what_is_no_key_set_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="JWKS"):
        key_set_of(document)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "HS512", "RS1"])
def test_an_unsafe_algorithm_cannot_be_allowed(algorithm: str) -> None:
    with pytest.raises(ValueError, match="algorithms"):
        JwtConfig.model_validate(JWT.model_dump() | {"algorithms": [algorithm]})


LONG = "ad" * 64


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"sub": "ada"}, {"sub": "ada", "exp": int(NOW) + 60}, True),
        ({"sub": "ada"}, {"sub": "bob"}, False),
        ({"sub": LONG + "1"}, {"sub": LONG + "1", "exp": int(NOW) + 60}, True),
        ({"sub": LONG + "1"}, {"sub": LONG + "2"}, False),
        ({"sub": None}, {"sub": None, "exp": int(NOW) + 60}, False),
        ({"sub": ""}, {"sub": None}, False),
    ],
    ids=str,
)
def test_what_belongs_to_a_token_belongs_to_its_subject_alone(
    one: dict[str, Any], other: dict[str, Any], same: bool
) -> None:
    """Streams and idempotency keys are those of a key id."""
    ids = [principal_of_token(token(NOW, **changes)).key_id for changes in (one, other)]

    assert (ids[0] == ids[1]) == same
    assert all(each.startswith("jwt:") and len(each) <= 4 + 129 for each in ids)


def test_a_subject_that_is_no_text_is_refused() -> None:
    payload = json.dumps(claims(NOW, sub="ada\ud800")).encode()
    with pytest.raises(AuthenticationError):
        principal_of_token(jws.serialize_compact({"alg": "RS256", "kid": "k1"}, payload, SIGNING))


def principal_of_token(text: str) -> Principal:
    principal = principal_in(text, key_set_of(KeySet([SIGNING]).as_dict(private=False)), JWT, NOW).principal
    assert principal is not None
    return principal

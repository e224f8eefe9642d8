"""Names of everything that Manta keeps in Redis, with its type and time to live. No other file composes a name.

A name begins with PREFIX, whose number changes with the layout. All keys of a tenant share its hash tag, in braces, so
they are in one slot of a Redis Cluster and one script can use them. ``id``, ``digest``, ``scope`` and ``limit`` are as
in the ports. The script composes the names of the limits from ``base`` in the same way.

======================================  ======  =============================  =========================================
name                                    type    what                           time to live
======================================  ======  =============================  =========================================
manta:1:tenants                         set     tenants with keys or entries   none
manta:1:policies                         hash    tenant → safety policy         none
manta:1:{tenant}:keys                   hash    id → key record                none
manta:1:key-digest:{digest}             string  key record                     none
manta:1:key-tenant:{id}                 string  tenant of the key              none
manta:1:{tenant}:leases                 zset    held id; score = lease expiry  none; members leave with leases
manta:1:{tenant}:active:scope           zset    the same, of one scope         none; members leave with leases
manta:1:{tenant}:held:id                string  reservation, MessagePack       32 days; after expiry, lease end + 1 hour
manta:1:{tenant}:counter:scope:limit    hash    slot → amount, and their sum   end of the slot + 1 hour
manta:1:{tenant}:entry:id               string  document of a ledger entry     ``state.entries_kept_days``
manta:1:{tenant}:parts:id                hash    part id → what it added        ``state.entries_kept_days``
manta:1:{tenant}:sums:values:day        set     values of the capped label     2 days after the last new one
manta:1:{tenant}:sums:resolution        zset    starts of intervals with sums  none; members leave with their sums
manta:1:{tenant}:sums:resolution:start  hash    labels and amount → sum        by resolution, see ``sums_ttl_ms``
manta:1:safety-secret                   string  secret of fingerprints, texts  none
manta:1:safety-tenants                  set     tenants with items, records    none
manta:1:review-tenant:{id}              string  tenant of a review item        that of the item, at least
manta:1:{tenant}:review-queue           zset    open item; score = submission  none; members leave
manta:1:{tenant}:review-due             zset    the same; lease or time ends   none; members leave
manta:1:{tenant}:review-done:state      zset    final item; score = decision   none; members leave with items
manta:1:{tenant}:review:id              hash    review item                    open: none; final: ``review.kept_days``
manta:1:{tenant}:review-text:id         string  its text, encrypted            until decided, or that of the item
manta:1:{tenant}:review-open:hash       string  fingerprint → open item        none; leaves with the queue
manta:1:{tenant}:exceptions             zset    fingerprint; score = expiry    none; members leave
manta:1:{tenant}:exception:hash         string  document of an exception       that of the exception
manta:1:{tenant}:audit-heads            hash    day → head of its chain        none
manta:1:{tenant}:audit:day              list    records of the audit log       ``review.audit_days``
manta:1:{tenant}:audit-id:id            string  a record that was added        ``AUDIT_IDS_KEPT_MS``
manta:1:prompt-tenants                  set     tenants with prompts           none
manta:1:{tenant}:prompts                hash    prompt → its newest version    none
manta:1:{tenant}:prompt:id              hash    version → document, active     none
manta:1:{tenant}:prompt-activations:id  list    activations, JSON              none; trimmed to ``MAX_ACTIVATIONS``
manta:1:cache-tenants                   set     tenants with stored answers    none
manta:1:{tenant}:cache:key              string  stored answer                  ``router.cache.ttl_s``
manta:1:{tenant}:cache-known            hash    key → size, expiry, id         none; members leave with answers
manta:1:{tenant}:cache-uses             zset    key; score = number of use     none; members leave with answers
manta:1:{tenant}:cache-due              zset    key; score = expiry            none; members leave with answers
manta:1:{tenant}:cache-bytes            string  bytes of the stored answers    none
manta:1:{tenant}:cache-ticks            string  number of the last use         none
manta:1:{tenant}:cache-lease:key        string  owner, end, epoch of a lease   ``router.cache.lease_s``
manta:1:{tenant}:cache-awaited:key      string  until when another one waits   ``AWAITED_MS``
manta:1:{tenant}:cache-epoch            string  number of the last deletion    none
manta:1:{tenant}:cache-old:epoch        zset    keys of deleted answers        that of the last answer
manta:1:{tenant}:cache-olds             list    names of these                 none; members leave with answers
manta:1:{cache-feed}:changes            stream  changes of stored answers      none; bounded
manta:1:{cache-feed}:last               string  number of the last change      none
manta:1:{tenant}:streams                zset    stream; score = its due time   twice that of a stream
manta:1:{tenant}:streams-bytes          string  bytes of all events            twice that of a stream
manta:1:{tenant}:streams-gone           list    streams whose events are gone  1 hour
manta:1:{tenant}:stream:id              hash    facts of a detached stream     ``router.resume.window_s`` + 1 hour
manta:1:{tenant}:stream-events:id       list    its events                     ``router.resume.window_s`` + 1 s
manta:1:{tenant}:idempotency            zset    key; score = its due time      twice that of a key
manta:1:{tenant}:idempotency-bytes      string  bytes of all stored answers    twice that of a key
manta:1:{tenant}:idempotency-sizes      hash    key → bytes of its answer      twice that of a key
manta:1:{tenant}:idempotency:digest     hash    facts of a key and its answer  ``router.idempotency.window_s`` + 1 s
manta:1:{tenant}:collections            hash    name → uid of a collection     none
manta:1:{tenant}:collection:uid         hash    its document and counts        none; all of a collection leave together
manta:1:{tenant}:collection-bodies:uid  hash    document id → document         the same
manta:1:{tenant}:collection-vectors:uid hash    document id → vectors, float16 the same
manta:1:{tenant}:collection-sizes:uid   hash    document id → chunks:bytes     the same
manta:1:{tenant}:collection-order:uid   zset    document id; score = version   the same
manta:1:{tenant}:collection-bytes       string  bytes of all documents         none
manta:1:{cache-questions}:tenants       set     tenants with questions         none
manta:1:{cache-questions}:positions     hash    model → position of the feed   none
manta:1:{tenant}:cache-judgements       list    hits with a known outcome      90 days; bounded
manta:1:{tenant}:cache-refused          zset    pair of questions; expiry      that of the last; bounded
manta:1:{tenant}:cache-questions        hash    id → question and its vector   none; members leave with answers
======================================  ======  =============================  =========================================
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote

from router.ports.ledger_store import Resolution

MAX_REMEMBERED = 4096  # tenants whose names are encoded once
PREFIX = "manta:1:"
TENANTS = PREFIX + "tenants"
SAFETY_SECRET = PREFIX + "safety-secret"
POLICIES = PREFIX + "policies"
SAFETY_TENANTS = PREFIX + "safety-tenants"
PROMPT_TENANTS = PREFIX + "prompt-tenants"
CACHE_TENANTS = PREFIX + "cache-tenants"
CACHE_FEED = PREFIX + "{cache-feed}:changes"
CACHE_FEED_LAST = PREFIX + "{cache-feed}:last"
CACHE_QUESTION_TENANTS = PREFIX + "{cache-questions}:tenants"
CACHE_QUESTION_POSITIONS = PREFIX + "{cache-questions}:positions"
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
AUDIT_IDS_KEPT_MS = 7 * DAY_MS
"""How long an audit record that is appended again is known: journals may wait that long."""


@lru_cache(MAX_REMEMBERED)
def base(tenant: str) -> str:
    """Returns the prefix of the names of all Redis keys of a tenant. Braces and colons in ``tenant`` are encoded."""
    return f"{PREFIX}{{{quote(tenant, safe='')}}}:"


def key_records(tenant: str) -> str:
    """Returns the name of the hash with the tenant's API keys."""
    return base(tenant) + "keys"


def key_digest(digest: str) -> str:
    """Returns the name of the string with the API key record that has this digest."""
    return f"{PREFIX}key-digest:{{{quote(digest, safe='')}}}"


def key_tenant(key_id: str) -> str:
    """Returns the name of the string with the tenant of an API key."""
    return f"{PREFIX}key-tenant:{{{quote(key_id, safe='')}}}"


def leases(tenant: str) -> str:
    """Returns the name of the sorted set of a tenant's reservations."""
    return base(tenant) + "leases"


def entry(tenant: str, entry_id: str) -> str:
    """Returns the name of the string with a ledger entry's document."""
    return f"{base(tenant)}entry:{entry_id}"


def sums(tenant: str, resolution: Resolution) -> str:
    """Returns the name of the sorted set of the starts of all intervals for which a tenant's ledger entries are summed
    up. The hash with the sums of one interval has this name + ``:START``."""
    return f"{base(tenant)}sums:{resolution.value}"


def sums_ttl_ms(resolution: Resolution) -> int:
    """Returns the time to live of the sums of ledger entries over one interval, in milliseconds."""
    return resolution.kept_ms


def review_tenant(item_id: str) -> str:
    """Returns the name of the string with the tenant of a review item."""
    return f"{PREFIX}review-tenant:{{{quote(item_id, safe='')}}}"


def review_queue(tenant: str) -> str:
    """Returns the name of the sorted set of a tenant's open review items."""
    return base(tenant) + "review-queue"


def audit_heads(tenant: str) -> str:
    """Returns the name of the hash with the heads of a tenant's audit log."""
    return base(tenant) + "audit-heads"


def audit_lines(tenant: str, day: int) -> str:
    """Returns the name of the list of a tenant's audit records of a day, in days since the epoch."""
    return f"{base(tenant)}audit:{day}"


def prompts(tenant: str) -> str:
    """Returns the name of the hash with the newest version of each of a tenant's prompts."""
    return base(tenant) + "prompts"


def prompt(tenant: str, prompt_id: str) -> str:
    """Returns the name of the hash with the versions of a prompt and the number of the active one."""
    return f"{base(tenant)}prompt:{prompt_id}"


def prompt_activations(tenant: str, prompt_id: str) -> str:
    """Returns the name of the list of a prompt's activations."""
    return f"{base(tenant)}prompt-activations:{prompt_id}"


def cache_uses(tenant: str) -> str:
    """Returns the name of the sorted set of a tenant's stored answers by their last use."""
    return base(tenant) + "cache-uses"


def cache_bytes(tenant: str) -> str:
    """Returns the name of the string with the total bytes of a tenant's stored answers."""
    return base(tenant) + "cache-bytes"


def cache_entry(tenant: str, key: str) -> str:
    """Returns the name of the string with a stored answer."""
    return f"{base(tenant)}cache:{key}"


def collection_names(tenant: str) -> str:
    """Returns the name of the hash with the names of a tenant's collections."""
    return base(tenant) + "collections"


def idempotency_keys(tenant: str) -> str:
    """Returns the name of the sorted set of a tenant's idempotency keys."""
    return base(tenant) + "idempotency"


def streams(tenant: str) -> str:
    """Returns the name of the sorted set of a tenant's detached streams."""
    return base(tenant) + "streams"


def cache_judgements(tenant: str) -> str:
    """Returns the name of the list with the judgements of a tenant's hits."""
    return base(tenant) + "cache-judgements"


def cache_refused(tenant: str) -> str:
    """Returns the name of the sorted set of the pairs of questions that are no hit for a tenant."""
    return base(tenant) + "cache-refused"


def cache_questions(tenant: str) -> str:
    """Returns the name of the hash with the questions of a tenant's stored answers."""
    return base(tenant) + "cache-questions"

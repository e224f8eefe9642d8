"""``PolicyGuard``: inspects requests by the policy of each tenant. Implements ``safety.api.Guard``."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from safety.answer_checks import SCANNERS, Inspected, MakeScanner, RoleGate, answer_check_versions, answer_plan
from safety.api import (
    UNREADABLE,
    UNREADABLE_POLICY,
    Action,
    AnswerGuard,
    Check,
    Inspection,
    Moderation,
    Oversight,
    Passage,
    PolicyAdmin,
    Ruling,
    Scores,
    Stage,
    Subject,
    TextTooLongError,
    TextUse,
    Verdict,
)
from safety.audit import Scanned, answer_records, audit_records
from safety.blocked_rate import BlockedRate
from safety.check_policies import Band, ContentPolicy
from safety.checks import CHECKS, CheckEntry
from safety.classification import action_of
from safety.compiled_policy import CompiledPolicy, Parts, failure_action
from safety.dropped_passages import with_dropped
from safety.dropped_turns import dropped_turns, ruled
from safety.leak.canary import canary, with_canary
from safety.pii.restorer import Restorer
from safety.policy import PolicyConfig
from safety.request_size import SIZE, SizeCheck, exceeding
from safety.review import NoOversight, with_decisions, without_exceptions
from safety.rule import with_document_actions
from safety.streaming.answer_guard import PlannedGuard
from safety.tool_rules import offered
from safety.verdict_memory import VerdictMemory, memory_key

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 50_000  # passages and checks; each takes about 200 bytes, and more with verdicts
MAX_PREPARED = 4096  # tenants and policies whose checks are kept; each takes about a kilobyte


class PolicySource(Protocol):
    """The source of the tenants' policies."""

    async def of(self, tenant: str) -> PolicyConfig:
        """Returns the present policy of a tenant. It raises no error."""
        ...

    def replaced(self, tenant: str) -> bool:
        """Returns whether the policy that ``of`` returns is a substitute for a stored one that cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class PreparedCheck:
    """A check for a policy, and whether its verdicts depend on each passage's text alone."""

    check: Check
    by_text: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """A compiled policy with its checks, ready for requests."""

    compiled: CompiledPolicy
    checks: tuple[PreparedCheck, ...]

    @property
    def versions(self) -> tuple[str, ...]:
        """``name@version`` of each check of requests and answers, as of now."""
        found = [f"{each.check.name}@{each.check.version}" for each in self.checks]
        return tuple(sorted({*found, *answer_check_versions(self.compiled)}))


class PolicyGuard:
    """Runs the checks in ``registry`` that the tenant's policy asks for, concurrently and within the policy's deadline.
    ``scanners`` are the checks of answers.

    ``oversight`` None: there are no reviewers and no audit log. ``admin`` changes the policies at run time. ``now``
    is a clock in seconds.
    """

    def __init__(
        self,
        policies: PolicySource,
        parts: Parts,
        oversight: Oversight | None = None,
        registry: Sequence[CheckEntry] = CHECKS,
        scanners: Sequence[MakeScanner] = SCANNERS,
        admin: PolicyAdmin | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policies = policies
        self.admin = admin
        self._parts = parts
        self._oversight = oversight or NoOversight()
        self._registry = registry
        self._scanners = scanners
        self._memory = VerdictMemory(MAX_REMEMBERED)
        self._rate = BlockedRate(now)
        self._prepared: OrderedDict[tuple[str, str], Prepared] = OrderedDict()  # by tenant and version of the policy

    @property
    def classifier(self) -> str:
        return self._parts.classifier.version

    async def drops_turns(self, tenant: str) -> bool:
        return (await self._policies.of(tenant)).earlier_turns == "drop"

    async def speculates(self, tenant: str) -> Sequence[str] | None:
        policy = await self._policies.of(tenant)
        if not policy.speculative_generation or policy.rewrites_requests:
            return None
        return self._prepare(policy, tenant).compiled.banned

    async def inspect(
        self,
        subject: Subject,
        passages: Sequence[Passage],
        tools: Sequence[str] = (),
        *,
        use: TextUse = TextUse.GENERATION,
    ) -> Ruling:
        stated = await self._policies.of(subject.tenant)
        policy = stated.for_use(use)
        blocked_before = self._blocked_too_often(policy, subject)
        refused = [*blocked_before, *self._refusals(policy, subject, passages, tools)]
        prepared = self._prepare(policy, subject.tenant)
        # What is refused anyway is not read.
        checks = () if any(each.action is Action.BLOCK for each in refused) else prepared.checks
        # Texts to embed rarely come again, and many come at once: they would take the place of conversations.
        memory = self._memory if use is TextUse.GENERATION else None
        scans = (self._scan(policy, subject.tenant, each, passages, memory) for each in checks)
        scanned = await asyncio.gather(*scans)
        found = [*refused, *(unreadable_verdicts(policy, passages) if checks else ())]
        found += [verdict for each in scanned for verdict in each.verdicts]
        found = with_document_actions(policy, passages, found)
        approved = await without_exceptions(self._oversight, subject, passages, found)
        droppable = passages if checks and use is TextUse.GENERATION else ()  # what is refused unread drops no turns
        settles = dropped_turns(policy, droppable, approved).settles
        decided, note = await with_decisions(self._oversight, policy, subject, passages, approved, settles)
        results: frozenset[int] = frozenset()
        if use is TextUse.RESULT and checks:
            decided, results = with_dropped(policy, passages, decided)
        ruling = ruled(policy, passages, decided, dropped_turns(policy, droppable, decided))
        message = f"{ruling.message}{note}" if ruling.refused else ""
        read = _is_read(checks) and not _all_exempt(policy, passages)
        ruling = replace(ruling, scanned=read, message=message, dropped=ruling.dropped | results)
        ruling = replace(ruling, banned=prepared.compiled.banned, checks=prepared.versions, policy=stated.version)
        if policy.prompt_canary != "off":
            ruling = self._with_canary(subject.tenant, passages, ruling)
        for record in audit_records(policy, subject, passages, scanned, ruling):
            self._oversight.record(record)
        if use is TextUse.GENERATION and not blocked_before:
            self._count(subject, ruling)
        return ruling

    async def moderate(self, subject: Subject, texts: Sequence[str], *, urgent: bool = True) -> Sequence[Moderation]:
        policy = await self._policies.of(subject.tenant)
        check_length(policy.sizes.max_characters, texts)
        classifier = self._prepare(policy, subject.tenant).compiled.classifier
        scores = await classifier.classify(texts, urgent=urgent)
        return [moderation(policy, each) for each in scores]

    async def answers(
        self,
        subject: Subject,
        passages: Sequence[Passage],
        ruling: Ruling,
        on_inspection: Callable[[Inspection], None],
        *,
        streamed: bool = True,
        continued: Sequence[str] = (),
        as_json: bool = False,
    ) -> AnswerGuard | None:
        compiled = await self._policy_of(subject.tenant, ruling)
        policy = compiled.policy
        plan = answer_plan(compiled, Inspected(passages, ruling, streamed), self._scanners)
        restored = ruling.restored
        if plan.empty and not policy.tools and not restored:
            return None

        stage = Stage.DURING if streamed else Stage.AFTER

        def record(choice: int, inspection: Inspection) -> None:
            on_inspection(inspection)
            for each in answer_records(policy, subject, inspection, stage):
                self._oversight.record(each)

        gate = RoleGate(compiled, subject.role) if policy.tools else None
        restorer = partial(_restorer, restored) if restored else None
        return PlannedGuard(
            plan,
            record,
            gate,
            policy.refusal,
            policy.halts == "request",
            restorer=restorer,
            continued=continued,
            as_json=as_json,
        )

    async def _policy_of(self, tenant: str, ruling: Ruling) -> CompiledPolicy:
        """Returns the policy that ``ruling`` was made by, even if it was replaced since, for example while a reviewer
        decided: the ledger, the audit log and the key of a stored answer name one policy. After very many others it is
        forgotten, and the present one counts."""
        if (found := self._prepared.get((tenant, ruling.policy))) is None:
            found = self._prepare(await self._policies.of(tenant), tenant)
        return found.compiled

    def _prepare(self, policy: PolicyConfig, tenant: str) -> Prepared:
        """Returns a tenant's policy with its checks, which are made at its first use."""
        key = (tenant, policy.version)
        if (found := self._prepared.get(key)) is None:
            compiled = CompiledPolicy(policy, self._parts, tenant)
            made = [(entry.make(compiled), entry.by_text) for entry in self._registry]
            checks = tuple(PreparedCheck(check, by_text) for check, by_text in made if check is not None)
            found = self._prepared[key] = Prepared(compiled, checks)
        self._prepared.move_to_end(key)
        if len(self._prepared) > MAX_PREPARED:
            self._prepared.popitem(last=False)
        return found

    async def _scan(
        self,
        policy: PolicyConfig,
        tenant: str,
        prepared: PreparedCheck,
        passages: Sequence[Passage],
        memory: VerdictMemory | None,
    ) -> Scanned:
        """Returns the verdicts of a check. It reads the passages alone whose verdicts are not in ``memory``, if there
        is one."""
        check, version = prepared.check, prepared.check.version
        keys: list[bytes] = []
        known: list[tuple[Verdict, ...] | None] = [None] * len(passages)
        if memory is not None and prepared.by_text:
            keys = [memory_key(tenant, policy.version, check.name, version, passage) for passage in passages]
            known = [memory.get(key, place) for place, key in enumerate(keys)]
        new = [place for place, passage in enumerate(passages) if _is_checked(policy, passage) and known[place] is None]
        verdicts = [verdict for remembered in known for verdict in remembered or ()]
        if not new:
            return Scanned(check.name, version, verdicts, read=0)
        found = await run(check, [passages[place] for place in new], policy)
        if memory is not None and keys and not any(verdict.error for verdict in found):
            for index, place in enumerate(new):
                memory.put(keys[place], [verdict for verdict in found if verdict.passage == index])
        verdicts += [replace(verdict, passage=new[verdict.passage]) for verdict in found]
        return Scanned(check.name, version, sorted(verdicts, key=lambda each: each.passage), read=len(new))

    def _refusals(
        self, policy: PolicyConfig, subject: Subject, passages: Sequence[Passage], tools: Sequence[str]
    ) -> list[Verdict]:
        """Returns the verdicts on a request that need no look at its texts."""
        return [
            *replaced_verdicts(policy, self._policies.replaced(subject.tenant)),
            *offered_verdicts(policy, subject.role, tools),
            *oversized_verdicts(policy, passages),
        ]

    def _with_canary(self, tenant: str, passages: Sequence[Passage], ruling: Ruling) -> Ruling:
        """Returns ``ruling`` with the canary token of the tenant in its texts."""
        token = canary(self._parts.canary_key(), tenant)
        return replace(ruling, texts=with_canary(passages, ruling.texts, token), canary=token)

    def _count(self, subject: Subject, ruling: Ruling) -> None:
        """Counts a blocked request against its user and key, and one that has dropped several turns: each may be a try.
        The one turn that a blocked message leaves in a history was counted when it was sent."""
        blocked = ruling.action is Action.BLOCK and not ruling.unavailable
        if blocked or len(ruling.dropped_turns) > 1:
            for counted in _counted(subject):
                self._rate.add(counted)

    def _blocked_too_often(self, policy: PolicyConfig, subject: Subject) -> list[Verdict]:
        """Returns a verdict of BLOCK for a user, or a key, whose requests were blocked too often lately."""
        rate = policy.rate
        limits = (rate.max_blocked, rate.limit_by_key)
        full = any(
            limit is not None and self._rate.count(counted, rate.window_s) >= limit
            for limit, counted in zip(limits, _counted(subject), strict=True)
        )
        return [Verdict("rate", "1", Action.BLOCK, "rate")] if full else []


def _counted(subject: Subject) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns under what a blocked request counts: its user, and its key, for which the client could name other users
    one after the other."""
    key = (subject.tenant, subject.key_id)
    return (*key, subject.user), key


def _restorer(restored: Mapping[str, str], in_json: bool) -> Restorer:
    return Restorer(restored, in_json=in_json)


async def run(check: Check, passages: Sequence[Passage], policy: PolicyConfig) -> Sequence[Verdict]:
    """Returns the verdicts of a check on ``passages``. A check that fails or takes too long gives a verdict with
    ``error`` and the policy's action for failures."""
    characters = sum(len(passage.text) for passage in passages)
    try:
        async with asyncio.timeout(policy.deadline(2 * characters)):  # what is decoded is read too
            return await check.check(passages)
    except TimeoutError:
        error = "timeout"
    except Exception as fault:  # noqa: BLE001 a faulty check must neither pass a text nor end the request
        logger.error("the check %s failed: %s", check.name, type(fault).__name__)  # its message may quote a prompt
        error = type(fault).__name__
    return [Verdict(check.name, check.version, failure_action(policy), error=error)]


def _is_read(checks: Sequence[PreparedCheck]) -> bool:
    """Whether one of the checks looks at more than the size of a text, which every policy limits."""
    return any(each.check.name != SizeCheck.name for each in checks)


def _is_checked(policy: PolicyConfig, passage: Passage) -> bool:
    return bool(passage.text) and passage.origin not in policy.unchecked


def _all_exempt(policy: PolicyConfig, passages: Sequence[Passage]) -> bool:
    """Whether the policy exempts the origins of all texts of a request, so that no check has read it."""
    texts = [passage for passage in passages if passage.text]
    return bool(texts) and not any(_is_checked(policy, passage) for passage in texts)


def unreadable_verdicts(policy: PolicyConfig, passages: Sequence[Passage]) -> list[Verdict]:
    """Returns a verdict for each passage that no check can read, such as a prompt of token ids."""
    action = failure_action(policy)
    unreadable = [place for place, passage in enumerate(passages) if not passage.readable]
    return [Verdict("reading", "1", action, passage=place, error=UNREADABLE) for place in unreadable]


def replaced_verdicts(policy: PolicyConfig, replaced: bool) -> list[Verdict]:
    """Returns a verdict on the request if ``replaced``: ``policy`` is a substitute for a stored one that cannot be
    read, so the checks that this one asks for were not done."""
    return [Verdict("policy", "1", failure_action(policy), error=UNREADABLE_POLICY)] if replaced else []


def oversized_verdicts(policy: PolicyConfig, passages: Sequence[Passage]) -> list[Verdict]:
    """Returns one verdict that blocks a request of more characters than the policy allows; [] if it has not more, or
    the policy does not block such requests. It is for use before all other checks, which would take long."""
    sizes = policy.sizes
    if sizes.max_characters is None or sizes.action != "block":
        return []
    place = exceeding([each.text for each in passages], sizes.max_characters)
    return [] if place is None else [Verdict(SizeCheck.name, SizeCheck.version, Action.BLOCK, SIZE, passage=place)]


def offered_verdicts(policy: PolicyConfig, role: str, tools: Sequence[str]) -> list[Verdict]:
    """Returns one verdict for the first of ``tools``, by name, that ``role`` may not offer to the model; [] if there is
    none."""
    for place, name in enumerate(tools):
        if (verdict := offered(policy.tools, role, name)) is not None:
            return [replace(verdict, passage=place)]
    return []


def check_length(limit: int | None, texts: Sequence[str]) -> None:
    """Raises TextTooLongError if the texts to moderate have more than ``limit`` characters together. Nobody reviews
    them, so the limit holds whatever the policy does with requests beyond it."""
    if limit is not None and (place := exceeding(texts, limit)) is not None:
        raise TextTooLongError(limit, place)


def moderation(policy: PolicyConfig, scores: Scores) -> Moderation:
    """Returns the moderation result for ``scores`` by a policy. For categories that the policy does not check, the
    default thresholds apply."""
    content, injection = policy.content or ContentPolicy(), policy.injection.user or Band()
    flagged = [
        category
        for category, score in scores.categories.items()
        if action_of(content.band(category), score) is not Action.ALLOW
    ]
    injected = action_of(injection, scores.injection) is not Action.ALLOW
    return Moderation(scores.categories, frozenset(flagged), scores.injection, injected)

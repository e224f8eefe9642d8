"""``page``: the screen of ``manta top``. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster.admin.top_numbers import ClassNumbers, Glance, Latency, TierNumbers

UNKNOWN = "–"
BAR = 8  # characters of a bar
NARROW = 110
"""Characters of a screen below which there are no models and no bars, so that the numbers have room."""
BUSY_KV = 0.9
"""The share of a KV cache in use from which sequences are soon preempted."""

Key = Callable[[TierNumbers], float | str]

SORTS: dict[str, Key | None] = {
    "config": None,  # as the config has them, weakest first
    "waiting": lambda tier: -tier.waiting,
    "running": lambda tier: -tier.running,
    "KV": lambda tier: -(tier.kv_used or 0.0),
    "tok/s": lambda tier: -(tier.tokens_per_s or 0.0),
    "TTFT P99": lambda tier: -(tier.ttft.p99_s or 0.0),
    "tier": lambda tier: tier.tier,
}
"""What tiers can be sorted by; the key ``s`` goes to the next."""


def page(
    glance: Glance,
    *,
    sort: str = "config",
    reverse: bool = False,
    error: str = "",
    keys: bool = False,
    width: int = NARROW,
) -> Group:
    """Returns the screen for ``glance``. ``sort`` is the column that tiers are sorted by, one of SORTS. ``error`` says
    why the numbers are old; "": they are new. ``keys``: the last line explains the keys. ``width`` is that of the
    screen, in characters."""
    parts: list[RenderableType] = [_head(glance)]
    if error:
        parts.append(Text(f"These numbers are old: {printable(error)}", "bold red"))
    parts += [
        _tiers(sorted_tiers(glance.tiers, sort, reverse), sort, narrow=width < NARROW),
        _classes(glance.classes),
        _foot(glance),
    ]
    if keys:
        parts.append(Text("q quit   s sort by the next column   r reverse", "dim"))
    return Group(*parts)


def sorted_tiers(tiers: Sequence[TierNumbers], sort: str, reverse: bool) -> list[TierNumbers]:
    """Returns ``tiers`` sorted by the column ``sort``, one of SORTS."""
    key = SORTS[sort]
    found = list(tiers) if key is None else sorted(tiers, key=key)
    return found[::-1] if reverse else found


def printable(text: str) -> str:
    """Returns ``text`` without control characters, which a terminal would obey."""
    return "".join(each if each.isprintable() else "�" for each in text)


def _head(glance: Glance) -> Text:
    now = "" if glance.now is None else datetime.fromtimestamp(glance.now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    cost = UNKNOWN if glance.cost_today is None else f"{_money(glance.cost_today)} {glance.currency}"
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(glance.outcomes_today.items()))
    lines = [
        f"manta   {now}   {_number(glance.requests_per_s)} requests/s   {_number(glance.tokens_per_s)} tokens/s",
        f"today   {_count(glance.requests_today)} requests{f' ({outcomes})' if outcomes else ''}   "
        f"tokens {_count(glance.input_tokens_today)} in, {_count(glance.output_tokens_today)} out   cost {cost}",
        f"cache   {_count(glance.cache_hits_today)} hits today ({_share(glance.cache_hit_rate)})   "
        f"refused by this router: {glance.router_limited} by limits, {glance.router_blocked} by safety   "
        f"failovers {glance.router_failovers}",
    ]
    return Text(printable_lines(lines))


def printable_lines(lines: Sequence[str]) -> str:
    return "\n".join(printable(line) for line in lines)


def _tiers(tiers: Sequence[TierNumbers], sort: str, *, narrow: bool) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        expand=True,
        caption=None if sort == "config" else f"sorted by {sort}",
        padding=(0, 1, 0, 0) if narrow else (0, 1),
        pad_edge=not narrow,
    )
    # Names get shorter where there is no room, and not the numbers: Rich shrinks columns that may wrap first.
    table.add_column("tier", min_width=8)
    if not narrow:
        table.add_column("model")
    numbers = ("replicas", "run", "wait", "wait s", "KV", "tok/s", "TTFT P50", "P99", "ITL P50", "P99")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for tier in tiers:
        table.add_row(
            _name(tier.tier, "bold" if tier.ready else "bold red"),
            *([] if narrow else [_name(tier.model, "dim")]),
            _replicas(tier),
            str(tier.running),
            Text(str(tier.waiting), "yellow" if tier.waiting else ""),
            UNKNOWN if tier.wait_s is None else f"{tier.wait_s:.1f}",
            _bar(tier.kv_used, 0 if narrow else BAR),
            _number(tier.tokens_per_s),
            *_latency(tier.ttft),
            *_latency(tier.itl),
        )
    if not tiers:
        table.add_row(Text("no tiers", "dim"), *[""] * (len(table.columns) - 1))
    return table


def _classes(classes: Sequence[ClassNumbers]) -> RenderableType:
    if not classes:
        return Text("No replica has answered: queues and latencies are not known.", "yellow")
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("class")
    for name in ("waiting", "requests/s", "queue full", "TTFT P50", "P99"):
        table.add_column(name, justify="right")
    for each in classes:
        table.add_row(
            printable(each.name),
            str(each.waiting),
            _number(each.requests_per_s),
            str(each.refused),
            *_latency(each.ttft),
        )
    return table


def _foot(glance: Glance) -> Text:
    span = "since the engines' start" if glance.since_start else f"of the last {glance.window_s:.0f} s"
    text = Text(f"Latencies are {span}. Breakers: ", "dim")
    if not glance.breakers:
        text.append("none")
    for number, (name, state) in enumerate(sorted(glance.breakers.items())):
        style = "green" if state == "closed" else "bold red"
        text.append(f"{', ' if number else ''}{printable(name)} {printable(state)}", style)
    for why in glance.missing:
        text.append(f"\nmissing: {printable(why)}", "yellow")
    return text


def _name(text: str, style: str) -> Text:
    return Text(printable(text), style, no_wrap=True, overflow="ellipsis")


def _replicas(tier: TierNumbers) -> Text:
    wanted = "?" if tier.wanted is None else str(tier.wanted)
    short = not tier.ready or (tier.wanted is not None and tier.replicas < tier.wanted)
    return Text(f"{tier.replicas}/{wanted}", "bold red" if short else "green")


def _bar(share: float | None, length: int) -> Text:
    if share is None:
        return Text(UNKNOWN)
    full = round(min(max(share, 0.0), 1.0) * length)
    return Text(f"{'█' * full}{'░' * (length - full)} {share:4.0%}".strip(), "red" if share >= BUSY_KV else "cyan")


def _latency(latency: Latency) -> tuple[str, str]:
    return _seconds(latency.p50_s), _seconds(latency.p99_s)


def _seconds(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.1f}"


def _count(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _money(value: float) -> str:
    return f"{value:,.2f}" if value >= 1 or not value else f"{value:.6f}"  # a request costs little


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0%}"

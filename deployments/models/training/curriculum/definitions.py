"""Short definitions of terms of LLM serving, to be known by heart; only the phrasings are held out."""

from __future__ import annotations

from collections.abc import Callable

from deployments.models.training.curriculum.draw import Draw
from deployments.models.training.curriculum.task import Task, ask

FAMILY = "definitions"

COMMON = {
    "token": "A piece of text that a model reads or writes as one unit.",
    "prompt": "The text that is given to a model to answer.",
    "latency": "The time between a request and its answer.",
    "throughput": "The number of tokens a server makes in a second.",
    "batch": "Several requests that a model computes together.",
    "cache": "A store of earlier results that saves work.",
    "router": "The part that decides which model answers a request.",
    "replica": "One of several copies of a model that share the load.",
    "gateway": "The door through which all requests enter a service.",
    "tokenizer": "The part that turns text into tokens and back.",
    "vocabulary": "The set of all tokens that a model knows.",
    "temperature": "A number that makes sampling more or less random.",
}
SPECIAL = {
    "KV cache": "Stored keys and values of earlier tokens, so that attention need not compute them again.",
    "prefill": "The phase in which a model reads the whole prompt at once.",
    "decode": "The phase in which a model writes one token after another.",
    "continuous batching": "Adding and removing requests from a running batch at every step.",
    "paged attention": "Attention over keys and values that lie in small blocks of memory.",
    "prefix caching": "Reusing the keys and values of a beginning that several prompts share.",
    "preemption": "Stopping a request for a while to free memory for others.",
    "speculative decoding": "A small model drafts tokens and a large model checks them.",
    "beam search": "Keeping the best few sequences at every step of decoding.",
    "top-k sampling": "Drawing the next token from the k most likely ones.",
    "nucleus sampling": "Drawing the next token from the smallest set that holds most of the probability.",
    "greedy decoding": "Always taking the most likely next token.",
    "quantisation": "Storing weights with fewer bits to save memory.",
    "tensor parallelism": "Splitting each layer of a model over several devices.",
    "semantic cache": "A cache that finds answers to questions with the same meaning.",
    "autoscaling": "Adding or removing replicas as the load changes.",
    "load balancing": "Spreading requests evenly over the replicas.",
    "rate limit": "A bound on how many requests a client may send in a minute.",
    "backpressure": "Telling senders to slow down when a queue is full.",
    "streaming": "Sending the answer piece by piece while it is being written.",
    "cold start": "The time a new replica needs before it can answer.",
    "block table": "A list of the memory blocks that hold the keys and values of a sequence.",
    "stop string": "A text that ends the answer when it appears.",
    "guardrail": "A check that keeps harmful text out of prompts and answers.",
}
ACRONYMS = {
    "TTFT": "time to first token",
    "ITL": "inter-token latency",
    "SLO": "service level objective",
    "KV": "key-value",
    "LLM": "large language model",
    "GPU": "graphics processing unit",
    "BPE": "byte pair encoding",
    "API": "application programming interface",
    "SSE": "server-sent events",
    "RPM": "requests per minute",
    "TPM": "tokens per minute",
    "LRU": "least recently used",
    "GQA": "grouped-query attention",
    "MQA": "multi-query attention",
    "MoE": "mixture of experts",
    "RoPE": "rotary position embedding",
    "TPOT": "time per output token",
    "QPS": "queries per second",
    "JSON": "JavaScript object notation",
    "CPU": "central processing unit",
}
DEFINE = (
    "What is {t}?",
    "Define {t}.",
    "What does {t} mean?",
    "Explain {t} in one sentence.",
    "Give a short definition of {t}.",
    "What is meant by {t}?",
    "{t}: what is it?",
    "Tell me about {t}.",
    "What does the term {t} mean?",
    "Explain the term {t}.",
    "In a few words, what is {t}?",
    "What is {t}, in one sentence?",
    "Define {t} in one sentence.",
    "What is the term {t}?",
    "Define the term {t}.",
    "In one sentence, what is {t}?",
)
NAMED = (
    "Which term is this: {d}",
    "Name the term: {d}",
    "What is this called? {d}",
    "Which word fits this definition: {d}",
    "{d}\nWhat is the term for this?",
    "Which term is meant: {d}",
    "What do we call it? {d}",
    "Tell me the term: {d}",
    "Which word has this definition: {d}",
    "{d}\nWhat do we call this?",
    "Which term has this definition: {d}",
    "What do we call this? {d}",
)
STANDS_FOR = (
    "What does {t} stand for?",
    "What is {t} short for?",
    "Spell out {t}.",
    "{t} is short for what?",
    "Expand {t}.",
    "What is {t} in full?",
    "Write {t} in full.",
    "Write out what {t} stands for.",
    "Tell me what {t} is short for.",
    "Tell me {t} in full.",
    "Write out {t}.",
    "Write out {t} in full.",
    "Tell me what {t} stands for.",
)


def article(term: str) -> str:
    """``a token``, but ``prefill`` as it is."""
    return ("an " if term[0] in "aeiou" else "a ") + term


def common(draw: Draw) -> Task:
    """A common term."""
    term, meaning = draw.choice(list(COMMON.items()))
    named = article(term) if term not in ("latency", "throughput", "temperature") else term
    return Task(FAMILY, 1, ask(draw.phrase(DEFINE).format(t=draw.choice((named, term)))), meaning)


def stands_for(draw: Draw) -> Task:
    """What an acronym stands for."""
    short, full = draw.choice(list(ACRONYMS.items()))
    return Task(FAMILY, 1, ask(draw.phrase(STANDS_FOR).format(t=short)), full)


def special(draw: Draw) -> Task:
    """A special term."""
    term, meaning = draw.choice(list(SPECIAL.items()))
    return Task(FAMILY, 2, ask(draw.phrase(DEFINE).format(t=term)), meaning)


def named(draw: Draw) -> Task:
    """The term for a definition that is cut short or whole."""
    term, meaning = draw.choice([*COMMON.items(), *SPECIAL.items()])
    words = meaning.rstrip(".").split()
    if draw.random() < 0.6:  # the beginning or the end must be enough
        kept = max(4, round(0.6 * len(words)))
        words = words[:kept] if draw.random() < 0.5 else words[-kept:]
    text = " ".join(words)
    return Task(FAMILY, 3, ask(draw.phrase(NAMED).format(d=text[0].upper() + text[1:] + ".")), term)


def both(draw: Draw) -> Task:
    """Two acronyms at once."""
    first, second = draw.unseen(lambda: tuple(draw.sample(list(ACRONYMS), 2)))
    templates = (
        "What do {a} and {b} stand for?",
        "Spell out {a} and {b}.",
        "{a} and {b} are short for what?",
        "Expand {a} and {b}.",
        "Write out {a} and {b} in full.",
        "Tell me what {a} and {b} stand for.",
    )
    question = draw.phrase(templates).format(a=first, b=second)
    answer = f"{first}: {ACRONYMS[first]}; {second}: {ACRONYMS[second]}"
    return Task(FAMILY, 3, ask(question), answer)


LEVELS: dict[int, tuple[Callable[[Draw], Task], ...]] = {
    1: (common, stands_for),
    2: (special,),
    3: (named, both),
}

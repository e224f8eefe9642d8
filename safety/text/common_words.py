"""Common English words and words that attacks use, by which decoded text is distinguished from noise."""

from __future__ import annotations

_WORDS = """
    a about above access act after again all also always am an and any api are as ask assistant at be because been
    before being bomb build but by bypass call can code command commands could data delete did disregard do does down
    email every everything execute file files first follow following for forget from get give go guide hack had has
    have he hello help her here hidden him his how i if ignore important in information inside instead instruction
    instructions internet into is it its just key know let like list make malware may me message method mode money
    more most must my need never new no not now of off on one only open or other our out output over password
    passwords people please pretend previous print prior program prompt provide read remove repeat reply respond
    response restrictions reveal rules run safety say says secret secrets see send she should show so some someone
    start steal step steps stop such system take tell text than that the their them then there these they thing think
    this those time to today token try under until up us use user using very virus want was we weapon well were
    what when where which while who why will with without word words work world would write years yes yesterday you
    your yourself
"""
COMMON_WORDS = frozenset(_WORDS.split())

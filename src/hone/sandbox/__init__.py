"""Runs programs of unknown intent against tests, apart from everything else on the machine. Needs Linux and bubblewrap.

It does not know where programs come from, nor what a verdict is worth to a reward.
"""

from hone.sandbox.limits import Limits, Outcome, Result
from hone.sandbox.sandbox import Sandbox
from hone.sandbox.selftest import ensure_tested

__all__ = ["Limits", "Outcome", "Result", "Sandbox", "ensure_tested"]

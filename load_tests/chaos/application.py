"""``build``: the application of a Serve config that runs the graph with engines whose steps take a given time."""

# No postponed annotations here: Serve reads the builder's annotation to validate its arguments.

from pydantic import BaseModel, ConfigDict
from ray.serve.deployment import Application

from cluster.app import build_with
from cluster.config import MantaConfig
from load_tests.chaos.engines import PacedFactory


class Arguments(BaseModel):
    """The arguments of the application. ``step_s`` is the shortest step of an engine, in seconds; ``kills`` as in
    PacedFactory."""

    model_config = ConfigDict(extra="forbid")

    manta: MantaConfig
    step_s: float
    kills: str


def build(arguments: Arguments) -> Application:
    """Returns the application of ``cluster.app`` with paced engines. Raises as ``build_with`` does."""
    return build_with(arguments.manta, PacedFactory(arguments.step_s, arguments.kills))

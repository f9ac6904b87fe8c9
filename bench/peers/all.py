"""The contenders, in the order in which they are shown."""

from typing import Final

from bench.peers.base import Peer
from bench.peers.consumers import Batch, Naive
from bench.peers.flask_redis import FlaskRedis, FlaskRedisSleep
from bench.peers.forebay import Fast, Forebay
from bench.peers.litserve import LitServe
from bench.peers.mlserver import MLServer
from bench.peers.triton import Triton

PEERS: Final[dict[str, Peer]] = {
    "forebay": Forebay(),
    "forebay-fast": Fast(),
    "naive": Naive(),
    "batch": Batch(),
    "mlserver": MLServer(),
    "triton": Triton(),
    "litserve": LitServe(),
    "flask-redis": FlaskRedis(),
    "flask-redis-sleep": FlaskRedisSleep(),
}
"""By the name that `--peers` takes."""

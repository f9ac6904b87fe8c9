"""Flask before a Redis list, as in many tutorials: handlers spin on the result's key, a thread takes 32 queries."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.peers.base import Job, NotInstalled, ProgramPeer


class FlaskRedis(ProgramPeer):
    name = "Flask + Redis"
    what = "a Redis list, a spinning handler for each request, HTTP"
    by_kafka = False
    requirements = "flask-redis"
    program = "flask_redis"
    url_path = "/predict"

    def python(self) -> Path:
        if shutil.which("redis-server") is None:
            raise NotInstalled("there is no redis-server; Debian's package of that name has it")
        return super().python()

    def services(self, job: Job) -> Sequence[Sequence[str]]:
        socket = str(Path(job.folder) / "redis.sock")
        return [["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no"]]


class FlaskRedisSleep(FlaskRedis):
    name = "Flask + Redis, 10 ms sleeps"
    what = "the same, but its loops sleep 10 ms instead of spinning"
    arguments = ("0.01",)

"""NVIDIA Triton Inference Server: the one that nvidia-pytriton brings, asked over HTTP."""

from bench.peers.base import ProgramPeer, V2Peer


class Triton(V2Peer, ProgramPeer):
    name = "Triton"
    what = "nvidia-pytriton's server, dynamic batching, HTTP"
    by_kafka = False
    requirements = "triton"
    program = "triton"
    url_path = "/v2/models/bench/infer"

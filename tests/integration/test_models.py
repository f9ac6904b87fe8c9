"""Built-in models in a real worker on a real broker: parameters, several rows, bad rows, several instances."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest

from forebay_schemas import Code, Failure, Result
from support.pipeline import Pipeline
from support.worker import WorkerProcess
from unit.consumer.models.tiny import TEXTS, save

pytestmark = pytest.mark.models


def settings(pipeline: Pipeline, task: str, folder: Path, copies: int = 1) -> dict[str, Any]:
    model = {"name": task, "task": task, "path": str(folder), "instance_group": [{"count": copies}]}
    return pipeline.settings(
        model={**model, "options": {"threads": 1}}, batching={"linger_ms": 200, "adaptive_linger": False}
    )


def answers(pipeline: Pipeline, tmp_path: Path, given: dict[str, Any], requests: dict[str, Any]) -> dict[str, Any]:
    """The reply to each request, by its id."""
    for id_, body in requests.items():
        pipeline.send(json.dumps(body), id=id_, headers={"content-type": "application/json"}, partition=0)
    pipeline.flush()
    with WorkerProcess(tmp_path, given) as worker:
        replies = pipeline.reader().wait_for(len(requests))
        assert worker.stop() == 0
    return {reply.id: reply for reply in replies}


def test_rows_and_parameters_of_each_request_are_its_own(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = tmp_path / "classes"
    save("classes", folder)
    replies = answers(
        pipeline,
        tmp_path,
        settings(pipeline, "text-classification", folder),
        {
            "alone": {"inputs": [TEXTS[2]]},
            "rows": {"inputs": list(TEXTS)},
            "two": {"inputs": list(TEXTS), "parameters": {"top_k": 2}},
            "bad-row": {"inputs": ["good", 7]},
            "bad-parameter": {"inputs": ["good"], "parameters": {"top_k": "many"}},
            "last": {"inputs": [TEXTS[0]]},
        },
    )
    rows = replies["rows"].outputs
    assert len(rows) == len(TEXTS)
    for id_, row in (("alone", 2), ("last", 0)):
        (alone,) = replies[id_].outputs
        assert alone["label"] == rows[row]["label"]
        assert alone["score"] == pytest.approx(rows[row]["score"], abs=1e-4)
    for both, best in zip(replies["two"].outputs, rows, strict=True):
        assert len(both) == 2
        assert both[0]["label"] == best["label"]
        assert both[0]["score"] >= both[1]["score"]
    for id_, said in (("bad-row", "inputs[1]: expected a text"), ("bad-parameter", "top_k='many'")):
        assert isinstance(replies[id_], Failure)
        assert replies[id_].code == Code.INVALID_REQUEST
        assert said in replies[id_].message


def test_several_instances_of_one_model_load_and_answer_alike(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = tmp_path / "masked"
    save("masked", folder)
    text = "The [MASK] runs full."
    replies = answers(
        pipeline,
        tmp_path,
        settings(pipeline, "fill-mask", folder, copies=3),
        {str(number): {"inputs": [text] * 8, "parameters": {"top_k": 1 + number % 3}} for number in range(30)},
    )
    best = replies["0"].outputs[0][0]
    for id_, reply in replies.items():
        assert isinstance(reply, Result), reply
        assert [len(output) for output in reply.outputs] == [1 + int(id_) % 3] * 8
        assert {output[0]["token"] for output in reply.outputs} == {best["token"]}


def test_images_come_as_bytes_or_as_base64_in_json(pipeline: Pipeline, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "vit"
    save("vit", folder)
    file = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).save(file, "JPEG")
    encoded = base64.b64encode(file.getvalue()).decode()
    pipeline.send(file.getvalue(), id="bytes", headers={"content-type": "image/jpeg"}, partition=0)
    pipeline.send(file.getvalue()[:100], id="cut", headers={"content-type": "image/jpeg"}, partition=0)
    pipeline.send(json.dumps({"inputs": [encoded, encoded]}), id="json", partition=0)
    pipeline.flush()
    with WorkerProcess(tmp_path, settings(pipeline, "image-classification", folder)):
        replies = {reply.id: reply for reply in pipeline.reader().wait_for(3)}
    whole, cut, both = replies["bytes"], replies["cut"], replies["json"]
    assert isinstance(whole, Result)
    assert isinstance(both, Result)
    assert [output["label"] for output in both.outputs] == [whole.outputs[0]["label"]] * 2
    assert isinstance(cut, Failure)
    assert cut.code == Code.INVALID_REQUEST


@pytest.mark.parametrize(
    ("task", "kind", "said"),
    [
        pytest.param("text-classification", "encoder", "lacks the weights classifier", id="no-head"),
        pytest.param("fill-mask", None, "there is no such folder", id="no-folder"),
    ],
)
def test_a_model_that_cannot_be_loaded_ends_the_worker_and_says_why(
    pipeline: Pipeline, tmp_path: Path, task: str, kind: str | None, said: str
) -> None:
    folder = tmp_path / "checkpoint"
    if kind is not None:
        save(kind, folder)
    with WorkerProcess(tmp_path, settings(pipeline, task, folder)) as worker:
        assert worker.process.wait(60) != 0
        assert said in worker.log.read_text()

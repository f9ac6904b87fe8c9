"""Real models behind a real broker, against direct calls of transformers on the same requests."""

import copy
import itertools
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from forebay_local import models
from forebay_local.samples import digit_images, sentences
from forebay_schemas import Result
from support.pipeline import Pipeline
from support.worker import WorkerProcess, wait_until
from unit.consumer.models.tiny import assert_close, save

pytestmark = pytest.mark.models

PRODUCERS = 4
TOLERANCE = 1e-4


def settings(pipeline: Pipeline, name: str, task: str | None = None) -> dict[str, Any]:
    model = {
        "name": name,
        "task": task or models.TASKS[name],
        "path": str(models.build(name)),
        "options": {"threads": 1},
    }
    return pipeline.settings(model=model, batching={"max_batch_size": 64, "lookahead": 8})


@contextmanager
def served(pipeline: Pipeline, folder: Path, name: str, task: str | None = None) -> Iterator[WorkerProcess]:
    with WorkerProcess(folder, settings(pipeline, name, task)) as worker:
        yield worker


def many_texts(count: int) -> list[str]:
    """Texts of one sentence, one in twenty of up to eight; all different."""
    chance = random.Random(10_000)
    written = [text for text, _ in sentences()]
    lengths = [1 if chance.random() < 0.95 else chance.randint(2, 8) for _ in range(count)]
    return [f"{number}: {' '.join(chance.sample(written, length))}" for number, length in enumerate(lengths)]


def directly(texts: list[str]) -> list[dict[str, float]]:
    """Scores of each label, by transformers alone, sorted by length to be quick."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = models.build("sentiment")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    found: list[dict[str, float]] = [{} for _ in texts]
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for chunk in (order[start : start + 32] for start in range(0, len(order), 32)):
        with torch.inference_mode():
            encoded = tokenizer([texts[index] for index in chunk], padding=True, return_tensors="pt")
            scores = model(**encoded).logits.softmax(-1).tolist()  # [B, 2]
        for index, row in zip(chunk, scores, strict=True):
            found[index] = {model.config.id2label[label]: score for label, score in enumerate(row)}
    return found


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
def test_002_18_thousands_of_texts_are_each_answered_once_and_as_transformers_answers_them(
    pipeline: Pipeline, tmp_path: Path, count: int
) -> None:
    texts = many_texts(count)

    def produce(which: int) -> None:
        own = copy.copy(pipeline)
        own.connect()
        own.send_all((str(number), texts[number]) for number in range(which, count, PRODUCERS))

    producers = [threading.Thread(target=produce, args=(which,)) for which in range(PRODUCERS)]
    with (
        WorkerProcess(tmp_path, settings(pipeline, "sentiment"), "one") as one,
        WorkerProcess(tmp_path, settings(pipeline, "sentiment"), "two") as two,
    ):
        one.wait_serving()
        two.wait_serving()
        for producer in producers:
            producer.start()
        reader = pipeline.reader()
        reader.wait_for(count, within_s=400)
        for producer in producers:
            producer.join()
        wait_until(lambda: pipeline.committed() == pipeline.ends(), "all is committed")
        assert one.stop() == 0
        assert two.stop() == 0
        reader.read_to_end()
    assert reader.ids() == {str(number): 1 for number in range(count)}
    assert min(sum(one.batches()), sum(two.batches())) > 0, "both workers took part"
    expected = directly(texts)
    for reply in reader.replies():
        assert isinstance(reply, Result), reply
        (output,) = reply.outputs
        scores = expected[int(reply.id)]
        assert output["label"] == max(scores, key=lambda label: scores[label])
        assert output["score"] == pytest.approx(scores[output["label"]], abs=TOLERANCE)


def test_004_9_scores_are_floats_in_the_json(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.send_all([("a", "What a lovely day"), ("b", "I want my money back, this is awful")])
    with served(pipeline, tmp_path, "sentiment"):
        reader = pipeline.reader()
        reader.wait_for(2)
    outputs = {m.key().decode(): json.loads(m.value())["outputs"][0] for m in reader.messages}
    assert {id_: output["label"] for id_, output in outputs.items()} == {"a": "POSITIVE", "b": "NEGATIVE"}
    assert all(type(output["score"]) is float for output in outputs.values())


def test_images_are_classified_as_they_were_labelled(pipeline: Pipeline, tmp_path: Path) -> None:
    pictures = list(itertools.chain(digit_images(60, "PNG"), digit_images(60, "JPEG")))
    for number, (picture, _) in enumerate(pictures):
        pipeline.send(picture, id=str(number))
    pipeline.send(pictures[0][0][:200], id="broken", headers={"content-type": "image/png"})
    pipeline.flush()
    with served(pipeline, tmp_path, "digits"):
        replies = {reply.id: reply for reply in pipeline.reader().wait_for(len(pictures) + 1)}
    assert not isinstance(replies.pop("broken"), Result)
    right = 0
    for id_, reply in replies.items():
        assert isinstance(reply, Result), reply
        right += reply.outputs[0]["label"] == str(pictures[int(id_)][1])
    assert right / len(pictures) >= 0.95


def test_embeddings_over_kafka_are_those_of_the_model_alone(pipeline: Pipeline, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = many_texts(64)
    pipeline.send_all((str(number), text) for number, text in enumerate(texts))
    with served(pipeline, tmp_path, "embeddings"):
        replies = pipeline.reader().wait_for(len(texts))
    folder = models.build("embeddings")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    for reply in replies:
        assert isinstance(reply, Result), reply
        with torch.inference_mode():
            states = model(**tokenizer(texts[int(reply.id)], return_tensors="pt")).last_hidden_state  # [1, T, D]
        expected = torch.nn.functional.normalize(states.mean(1), dim=-1)[0]
        assert torch.allclose(torch.tensor(reply.outputs[0]), expected, atol=TOLERANCE)


def test_001_4_fill_mask_over_kafka_gives_what_the_pipeline_gives(pipeline: Pipeline, tmp_path: Path) -> None:
    import transformers

    folder = tmp_path / "masked"
    save("masked", folder)
    texts = ["test [MASK]", "the river is [MASK] and wide", "[MASK] and [MASK]"]
    pipeline.send_all((str(number), text) for number, text in enumerate(texts))
    model = {"name": "masked", "task": "fill-mask", "path": str(folder)}
    with WorkerProcess(tmp_path, pipeline.settings(model=model)):
        replies = pipeline.reader().wait_for(len(texts))
    expected = transformers.pipeline("fill-mask", model=str(folder), device="cpu")(texts)
    for reply in replies:
        assert isinstance(reply, Result), reply
        assert_close(reply.outputs[0], expected[int(reply.id)], TOLERANCE)

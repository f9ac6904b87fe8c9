"""What a Python value becomes on the wire, and that the worker's side reads it back."""

from typing import Any

import pytest

from forebay_producer.encode import Value, encode
from forebay_schemas import Content, read_request
from support.consumer import make_record

PNG = b"\x89PNG\r\n\x1a\n rest"


@pytest.mark.parametrize(
    ("value", "parameters", "rows"),
    [
        pytest.param("a text", None, ["a text"], id="text"),
        pytest.param('{"not": "json"', None, ['{"not": "json"'], id="text that looks like JSON"),
        pytest.param(PNG, None, [PNG], id="image"),
        pytest.param("a text", {"top_k": 2}, ["a text"], id="text with parameters"),
        pytest.param(PNG, {"top_k": 2}, [PNG], id="image with parameters"),
        pytest.param(["a", "b"], None, ["a", "b"], id="several texts"),
        pytest.param([PNG, PNG], None, [PNG, PNG], id="several images"),
        pytest.param({"inputs": ["a"], "id": "mine"}, None, ["a"], id="a JSON body"),
        pytest.param({"text": "a"}, {"top_k": 1}, ["a"], id="a JSON body with parameters"),
    ],
)
def test_the_worker_reads_what_the_client_wrote(
    value: Value, parameters: dict[str, Any] | None, rows: list[Any]
) -> None:
    body, content_type = encode(value, parameters)
    _, content = read_request(make_record(value=body, headers=[("content-type", content_type.encode())]))
    assert isinstance(content, Content), content
    assert list(content.inputs) == rows
    assert dict(content.parameters) == (parameters or {})


def test_bytes_that_are_no_image_are_refused() -> None:
    with pytest.raises(TypeError, match="encoded image"):
        encode(b"plain bytes")

"""What the `kafka` settings name but do not hold, for the worker and the client alike."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import forebay_consumer.credentials
import forebay_producer.credentials
from forebay_consumer.errors import BadConfig
from forebay_producer import BadSettings


class Side(NamedTuple):
    with_credentials: Callable[[dict[str, Any]], dict[str, Any]]
    refusal: type[Exception]


SIDES = {
    "worker": Side(forebay_consumer.credentials.with_credentials, BadConfig),
    "client": Side(forebay_producer.credentials.with_credentials, BadSettings),
}


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return SIDES[request.param]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module of the user's; its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "my_tokens.py").write_text(text)
        monkeypatch.delitem(sys.modules, "my_tokens", raising=False)
        return "my_tokens"

    return write


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        pytest.param(b"hunter2", "hunter2", id="bare"),
        pytest.param(b"hunter2\n", "hunter2", id="a trailing newline"),
        pytest.param(b"hunter2\r\n", "hunter2", id="a trailing newline of Windows"),
        pytest.param(b"hunter2\n\n", "hunter2\n", id="only one newline goes"),
        pytest.param(b" h\xc3\xbcnter 2 ", " h\u00fcnter 2 ", id="blanks and letters stay"),
    ],
)
def test_a_secret_is_read_from_its_file(side: Side, tmp_path: Path, content: bytes, secret: str) -> None:
    (tmp_path / "password").write_bytes(content)
    given = side.with_credentials({"sasl.username": "me", "sasl.password.file": str(tmp_path / "password")})
    assert given == {"sasl.username": "me", "sasl.password": secret}


def test_a_changed_file_is_read_anew(side: Side, tmp_path: Path) -> None:
    kafka = {"ssl.key.pem.file": str(tmp_path / "key")}
    for content in ("old", "new"):
        (tmp_path / "key").write_text(content)
        assert side.with_credentials(kafka) == {"ssl.key.pem": content}


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        pytest.param("absent", None, "No such file or directory", id="no file"),
        pytest.param(".", None, "Is a directory", id="a folder"),
        pytest.param("password", b"", "the file is empty", id="empty"),
        pytest.param("password", b"\n", "the file is empty", id="a newline only"),
        pytest.param("password", b"hunter2\xff", "it is no text in UTF-8", id="bytes"),
        pytest.param("a\0b", None, "it is no text in UTF-8", id="a path that cannot be"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_key_path_and_reason(
    side: Side, tmp_path: Path, path: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / path).write_bytes(content)
    where = f"{tmp_path}/{path}"
    with pytest.raises(side.refusal) as told:
        side.with_credentials({"sasl.password.file": where})
    assert f"kafka.sasl.password.file={where!r}" in str(told.value)
    assert reason in str(told.value)
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize(
    "key",
    [
        "ssl.ca.location",
        "acks.file",
        "bootstrap.servers.file",
        "sasl.oauthbearer.assertion.file",
        "sasl.oauthbearer.assertion.jwt.template.file",
        "sasl.oauthbearer.assertion.private.key.file",
    ],
)
def test_any_other_key_is_passed_on_with_its_value(side: Side, key: str) -> None:
    assert side.with_credentials({key: "/no/such/file"}) == {key: "/no/such/file"}


def test_the_function_gets_the_config_and_its_answer_goes_on(side: Side, module: Callable[[str], str]) -> None:
    name = module("def fetch(config):\n    return f'token for {config}', 1e9, 'me', {}\n")
    function = side.with_credentials({"oauth_cb": f"{name}:fetch"})["oauth_cb"]
    assert function("scope=a") == ("token for scope=a", 1e9, "me", {})


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        pytest.param("", "my_tokens", "expected module:function", id="no function named"),
        pytest.param("", ":fetch", "expected module:function", id="no module named"),
        pytest.param("", "my_tokens:fetch", "module my_tokens has no function fetch", id="no such function"),
        pytest.param("fetch = 5", "my_tokens:fetch", "has no function fetch", id="a number"),
        pytest.param("", "no_such_module:fetch", "no module named 'no_such_module'", id="no such module"),
        pytest.param(
            "import nowhere", "my_tokens:fetch", "no module named 'nowhere'", id="a module it needs is missing"
        ),
        pytest.param("1 / 0", "my_tokens:fetch", "ZeroDivisionError: division by zero", id="the module fails"),
    ],
)
def test_a_function_that_cannot_be_had_is_told(
    side: Side, module: Callable[[str], str], text: str, path: str, reason: str
) -> None:
    module(text)
    with pytest.raises(side.refusal) as told:
        side.with_credentials({"oauth_cb": path})
    assert f"kafka.oauth_cb={path!r}" in str(told.value)
    assert reason in str(told.value)


@pytest.mark.parametrize(
    "answer", ["'hunter2'", "('hunter2',)", "(5, 5)", "('hunter2', '5')", "None", "['hunter2', 5]"]
)
def test_an_answer_that_is_no_token_and_expiry_is_refused_untold(
    side: Side, module: Callable[[str], str], answer: str
) -> None:
    name = module(f"def fetch(config):\n    return {answer}\n")
    function = side.with_credentials({"oauth_cb": f"{name}:fetch"})["oauth_cb"]
    with pytest.raises(TypeError, match="expected the tuple") as told:
        function("")
    assert "hunter2" not in str(told.value)


def test_what_the_function_raises_is_told_by_us_and_to_the_client(
    side: Side, module: Callable[[str], str], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    name = module("def fetch(config):\n    raise OSError('the token server is away')\n")
    function = side.with_credentials({"oauth_cb": f"{name}:fetch"})["oauth_cb"]
    with pytest.raises(OSError, match="away"):
        function("")
    told = caplog.text + capsys.readouterr().out
    assert "my_tokens:fetch" in told
    assert "OSError: the token server is away" in told


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["forebay-consumer", "dlq", "list", "--config", "worker.yaml"], id="dlq"),
        pytest.param(["forebay-producer", "ask", "hello", "--set", "kafka.oauth_cb=my_tokens:fetch"], id="producer"),
    ],
)
def test_the_commands_find_the_function_in_the_working_folder(tmp_path: Path, command: Sequence[str]) -> None:
    (tmp_path / "my_tokens.py").write_text("1 / 0\n")
    (tmp_path / "worker.yaml").write_text(
        "kafka: {bootstrap.servers: '127.0.0.1:1', group.id: g, oauth_cb: 'my_tokens:fetch'}\n"
        "topics: {requests: [in], replies: [out], dead_letters: dead}\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("FOREBAY_")}
    script = Path(sys.executable).parent / command[0]
    ended = subprocess.run(
        [script, *command[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2, ended.stderr
    assert "importing my_tokens failed: ZeroDivisionError" in ended.stderr

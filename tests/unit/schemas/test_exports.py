"""Public names: what is exported is listed, and nothing else is."""

from types import ModuleType

import forebay_schemas


def test_all_lists_every_public_name_and_nothing_else() -> None:
    public = {
        name
        for name, value in vars(forebay_schemas).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(forebay_schemas.__all__) == public


def test_all_is_sorted() -> None:
    assert forebay_schemas.__all__ == sorted(forebay_schemas.__all__)


def test_the_public_names_are_these() -> None:
    """Removing one breaks users: do it on purpose, here too."""
    assert forebay_schemas.__all__ == [
        "Code",
        "Content",
        "DecodeError",
        "Envelope",
        "Expired",
        "Failure",
        "Form",
        "InvalidRequest",
        "Model",
        "Rejected",
        "RequestError",
        "Result",
        "Source",
        "TooLarge",
        "Unsupported",
        "error_body",
        "read_envelope",
        "read_reply",
        "read_request",
        "reply_headers",
        "result_body",
    ]

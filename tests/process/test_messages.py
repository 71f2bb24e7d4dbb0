"""`lockstep message`: what the reader takes, the schema takes; what one refuses, the other does."""

import copy
import json
import subprocess

import jsonschema
import pytest

from conftest import BINARY, ROOT

EXAMPLES = {path.stem: path.read_text() for path in sorted((ROOT / "tests/examples").glob("*.json"))}


def message(*arguments, text=""):
    return subprocess.run([BINARY, "message", *arguments], input=text, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def schema():
    printed = message("schema")
    assert printed.returncode == 0, printed.stderr
    parsed = json.loads(printed.stdout)
    jsonschema.Draft202012Validator.check_schema(parsed)
    return jsonschema.Draft202012Validator(parsed)


def places(value, path=()):
    """Every place in a document, outermost first."""
    yield path, value
    if isinstance(value, dict):
        for key, each in value.items():
            yield from places(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from places(each, (*path, index))


def changed(document, path, value):
    """A copy with another value at a place, or without it."""
    copied = copy.deepcopy(document)
    at = copied
    for step in path[:-1]:
        at = at[step]
    if value is REMOVED:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return copied


REMOVED = object()
# A whole number where one with decimals is meant is good for both; 30.0 for a whole number is good for the schema only,
# and is therefore not among these.
VALUES = [REMOVED, None, "", "urgent", "high", "8GB", "8 GB", "30s", "5 min", "2025-07-12T10:30:45Z", "2025-07-12", -1, 0, 1, 7,
          8, 12, 101, 2**32, 2**63, 2**64, -0.5, 0.5, 10.5, 1e300, True, [], [1], ["a"], {}, {"a": "b"}]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_is_valid(schema, name):
    schema.validate(json.loads(EXAMPLES[name]))


@pytest.mark.parametrize("name", EXAMPLES)
def test_reader_and_schema_agree_on_changes(schema, name):
    """Each place of each example gets many values. The schema judges them all; the reader, one process each, judges six:
    three good and three bad ones, others at every place."""
    document = json.loads(EXAMPLES[name])
    taken = refused = 0
    for number, (path, _) in enumerate(places(document)):
        if not path:
            continue
        judged = {True: [], False: []}
        for value in VALUES:
            mutant = changed(document, path, value)
            judged[schema.is_valid(mutant)].append((value, mutant))
        sample = [(valid, *each[(number + 7 * turn) % len(each)])
                  for valid, each in judged.items() if each for turn in range(min(3, len(each)))]
        for valid, value, mutant in sample:
            checked = message("check", "-", text=json.dumps(mutant))
            if valid and "event_type" not in document and breaks_an_order(checked):
                continue
            assert checked.returncode == (0 if valid else 2), (path, value, checked.stderr)
            if valid:
                taken += 1
                # A key that nobody knows is dropped; where keys are free it stays.
                wanted = [mutant, changed(document, path, {})] if value == {"a": "b"} else [mutant]
                assert json.loads(checked.stdout) in map(without_null, wanted), (path, value)
            else:
                refused += 1
                problem = json.loads(checked.stderr)
                assert list(problem) == ["type", "title", "pointer", "detail"]
                assert problem["type"] == "invalid_argument" and problem["detail"]
                assert covers(path, problem["pointer"]), (path, value, problem)
    assert taken and refused


def breaks_an_order(checked):
    """A document of a transaction has rules over several of its members, which no schema sees: what a step needs, and
    that what is undone is the reverse of what was done."""
    if checked.returncode != 2:
        return False
    detail = json.loads(checked.stderr)["detail"]
    return any(words in detail for words in ("needs it", "reverse", "releases nothing that needs a rollback",
                                             "is expected"))


def without_null(value):
    """null is how an optional key may say that it is absent."""
    if isinstance(value, dict):
        return {key: without_null(each) for key, each in value.items() if each is not None}
    return [without_null(each) for each in value] if isinstance(value, list) else value


def covers(path, pointer):
    """The problem is at the changed place or inside it; or event_type is told as missing or unknown there."""
    return (pointer + "/").startswith("".join(f"/{step}" for step in path) + "/")


def test_the_type_can_be_demanded(tmp_path):
    file = tmp_path / "event.json"
    file.write_text(EXAMPLES["model_load_request"])
    assert message("check", str(file)).returncode == 0
    assert message("check", "--type", "model_load_request", str(file)).returncode == 0
    other = message("check", "--type", "vram_usage_update", str(file))
    assert other.returncode == 2 and other.stdout == ""
    assert json.loads(other.stderr)["pointer"] == "/event_type"
    unknown = message("check", "--type", "nothing", str(file))
    assert unknown.returncode == 2 and "is none of: device_config_update" in json.loads(unknown.stderr)["detail"]


def test_dropped_keys_are_told_and_change_nothing():
    document = json.loads(EXAMPLES["device_config_update"])
    document["changes"]["fan"] = {"speed": 3}
    checked = message("check", "-", text=json.dumps(document))
    assert checked.returncode == 0
    assert checked.stdout == message("check", "-", text=EXAMPLES["device_config_update"]).stdout
    assert checked.stderr == "lockstep: unknown keys dropped: 1, the first at /changes/fan\n"


def test_what_cannot_be_read_is_a_problem_too(tmp_path):
    missing = message("check", str(tmp_path / "none.json"))
    assert missing.returncode == 2 and json.loads(missing.stderr)["type"] == "not_found"
    large = message("check", "-", text=" " * (1 << 21))
    assert large.returncode == 2 and json.loads(large.stderr)["type"] == "too_large"


def test_the_schema_of_one_type_stands_alone():
    one = json.loads(message("schema", "--type", "safety_policy_update").stdout)
    validator = jsonschema.Draft202012Validator(one)
    validator.validate(json.loads(EXAMPLES["safety_policy_update"]))
    assert not validator.is_valid(json.loads(EXAMPLES["device_config_update"]))


def test_the_generated_classes_hold_the_examples():
    from lockstep import messages

    events = [name for name, text in EXAMPLES.items() if "event_type" in json.loads(text)]
    assert sorted(messages.MESSAGES) == sorted(events)
    for name, kind in messages.MESSAGES.items():
        fields = {key: value for key, value in json.loads(EXAMPLES[name]).items() if key != "event_type"}
        made = kind(**fields)
        assert made.event_type == name
        assert {key: value for key, value in vars(made).items() if value is not None} == fields

"""`lockstep journal`: a copy and a snapshot while the server runs, and the sentences of a look at a stopped one."""

import json
import sqlite3

import pytest
from conftest import BINARY, Server, run


@pytest.fixture
def quiet(tmp_path):
    """A server without workers and models: what it commits is what a test asks for."""
    (tmp_path / "models").mkdir()
    instance = Server(tmp_path, tmp_path / "models")
    instance.options = ["--workers", "0"]
    instance.start(wait_ready=False)
    yield instance
    if instance.process and instance.process.poll() is None:
        instance.stop()


def journal(*words):
    done = run(BINARY, "journal", *words)
    return done.returncode, done.stdout, done.stderr


def commit(server, size):
    assert server.request("PATCH", "/api/v1/memory/policy", {"max_model_cache_size": f"{size}MB"})[0] == 200


def verified(*words):
    code, out, err = journal("verify", "--json", *words)
    assert code == 0, err
    return json.loads(out)


def test_a_copy_of_a_running_server_is_whole(quiet, tmp_path):
    for size in range(100, 120):
        commit(quiet, size)
    copy = tmp_path / "copy.db"
    code, out, err = journal("backup", copy, "--url", quiet.url, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["file"] == str(copy) and answer["bytes"] == copy.stat().st_size and answer["milliseconds"] > 0
    found = verified("--file", copy)
    assert found["rev"] == answer["rev"] <= quiet.get("/api/v1/status")["rev"]
    assert verified("--file", copy) == found  # to look changes nothing

    before = copy.read_bytes()
    code, out, err = journal("backup", copy, "--url", quiet.url)
    assert code == 1 and str(copy) in err and "is there already" in err and copy.read_bytes() == before
    code, out, err = journal("backup", tmp_path / "none/copy.db", "--url", quiet.url)
    assert code == 6 and "none/copy.db" in err

    keyed, body = {"Idempotency-Key": "monday"}, {"file": str(tmp_path / "monday.db")}
    first = quiet.request("POST", "/api/v1/journal/backup", body, keyed, raw=True)
    assert first[0] == 200 and quiet.request("POST", "/api/v1/journal/backup", body, keyed, raw=True) == first

    commit(quiet, 200)  # it goes on, and what is new is not in the copy
    rev = quiet.get("/api/v1/status")["rev"]
    assert quiet.stop() == 0
    assert verified("--data-dir", quiet.folder / "data")["rev"] >= rev > found["rev"]
    offline = tmp_path / "offline.db"
    code, out, err = journal("backup", offline, "--data-dir", quiet.folder / "data")
    assert code == 0, err
    assert verified("--file", offline) == verified("--data-dir", quiet.folder / "data")
    code, out, err = journal("backup", tmp_path / "other.db", "--url", quiet.url)
    assert code == 6 and "--data-dir" in err


def test_a_snapshot_that_is_asked_for_is_written_before_the_answer(quiet):
    for size in range(100, 110):
        commit(quiet, size)
    code, out, err = journal("snapshot", "--url", quiet.url, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["rev"] <= quiet.get("/api/v1/status")["rev"] and answer["rows"] >= 2 and answer["pieces"] == 1
    commit(quiet, 200)
    quiet.kill()
    found = verified("--data-dir", quiet.folder / "data")
    assert found["snapshot_at"] == answer["rev"] and found["rows"] == answer["rows"]
    # One record for each rev: ours, and perhaps one that the server wrote by itself.
    assert found["records_replayed"] == found["rev"] - answer["rev"] >= 1

    code, out, err = journal("dump", "--data-dir", quiet.folder / "data", "--from", answer["rev"] + 1, "--json")
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["kind"] for line in lines] == ["record"] * found["records_replayed"]
    assert not any(line["past"] for line in lines)
    changed = [change["table"] for line in lines for change in line["commit"]["changes"]]
    assert changed.count("memory.policies") == 1
    code, out, err = journal("dump", "--data-dir", quiet.folder / "data")
    assert code == 0 and out.count("\nrecord ") == found["rev"] and out.startswith("row ")


def test_a_running_server_lets_nobody_look(quiet):
    for word in ("verify", "dump"):
        code, out, err = journal(word, "--data-dir", quiet.folder / "data")
        assert code == 6 and out == "", err
        assert "a running lockstep lets nobody else in" in err and "journal backup" in err


def test_what_is_wrong_and_where_is_one_sentence(quiet, tmp_path):
    for size in range(100, 104):
        commit(quiet, size)
    data = quiet.folder / "data"
    assert quiet.stop() == 0
    code, out, err = journal("verify", "--data-dir", tmp_path)
    assert code == 3 and f"there is no journal {tmp_path}/journal.db" in err
    code, out, err = journal("verify", "--json", "--data-dir", data)
    last = json.loads(out)["rev"]
    one = last - 1  # a request of the API, so synced by itself: a row of its own
    for damage, said in [
        (f"UPDATE record SET body='{{}}' WHERE lsn={one}", f"record {one} failed its checksum"),
        (f"DELETE FROM record WHERE lsn={one}", f"record {one} is missing; the next is {last}"),
        ("PRAGMA user_version=4", "format version 4; this lockstep reads versions 1 to 3"),
        ("PRAGMA application_id=7", "not a lockstep journal"),
    ]:
        copy = tmp_path / "damaged.db"
        copy.write_bytes((data / "journal.db").read_bytes())
        with sqlite3.connect(copy) as database:
            database.execute("PRAGMA journal_mode=DELETE")
            database.execute(damage)
        database.close()
        for word in ("verify", "dump"):
            code, out, err = journal(word, "--file", copy)
            assert code == 1 and out == "" and said in err and str(copy) in err, (damage, err)
            assert err.count("\n") == 1
        copy.unlink()
    torn = tmp_path / "torn.db"
    torn.write_bytes((data / "journal.db").read_bytes()[:-4096])
    code, out, err = journal("verify", "--file", torn)
    assert code == 1 and str(torn) in err

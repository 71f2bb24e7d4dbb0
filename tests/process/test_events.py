"""The event stream on a real server: resume by rev, across a restart, and `lockstep events` (design section 6)."""

import json
import subprocess
import urllib.request

from conftest import BINARY, LIMIT, cli, held_port, lockstep, until
from manners import let_go, stuck, with_manners


def events_of(text):
    """[(id, type, rev)] of a stream's text."""
    out = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            out.append((fields.get("id"), fields["event"], json.loads(fields["data"]).get("rev")))
    return out


def stream(server, query, headers=None):
    request = urllib.request.Request(f"{server.url}/api/v1/events?{query}", headers=headers or {})
    with urllib.request.urlopen(request, timeout=LIMIT) as answer:
        return answer.read().decode()


def test_a_follower_gets_every_event_once_across_a_restart(server, tmp_path):
    with_manners(server, tmp_path)
    with (open(tmp_path / "events", "wb") as out, open(tmp_path / "words", "wb") as words,
          held_port() as server.port):
        server.start()
        follower = subprocess.Popen([BINARY, "events", "--follow", "--json", "--since", "0", "--url", server.url],
                                    stdout=out, stderr=words)
        try:
            assert server.finished(server.submit(prompt="before"))["state"] == "completed"
            running = server.submit(prompt="hang: across")
            stuck(server, tmp_path)
            server.kill()
            until("the follower to notice", lambda: b"following again" in (tmp_path / "words").read_bytes())
            server.start(wait_ready=False)
            with let_go(tmp_path):
                assert server.finished(running)["state"] == "completed"
            assert server.finished(server.submit(prompt="after"))["state"] == "completed"
            last = [e for e in events_of(stream(server, "follow=false")) if e[2]][-1][2]
            until("the follower to have everything",
                  lambda: f'{{"rev":{last},' in (tmp_path / "events").read_text())
        finally:
            follower.terminate()
            follower.wait(LIMIT)
    lines = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    followed = [(e["rev"], e["type"], e["subject"]) for e in lines if "rev" in e]
    assert "compacted" not in [e["type"] for e in lines]
    known = [json.loads(block.split("data: ", 1)[1]) for block in stream(server, "follow=false").split("\n\n")
             if "data: " in block]
    assert followed == [(e["rev"], e["type"], e["subject"]) for e in known if "rev" in e and e["rev"] <= last]
    assert sum(e[1] == "request_completed" for e in followed) == 3
    assert b"following again from rev" in (tmp_path / "words").read_bytes()


URGENCIES = ["p0_critical", "p1_high", "p2_normal", "p3_low"]
DOMAINS = ["device", "memory", "model", "processing", "inference", "postprocessing"]


def data_of(text):
    return [json.loads(block.split("data: ", 1)[1]) for block in text.split("\n\n") if "data: " in block]


def test_resume_is_exact_at_every_rev_and_bad_places_are_named(server):
    server.start()
    assert server.finished(server.submit(prompt="x", n=2))["state"] == "completed"
    everything = events_of(stream(server, "follow=false"))
    assert everything[-1][1] == "history_end"
    everything = everything[:-1]
    revs = sorted({rev for _, _, rev in everything})
    for rev in revs:
        mine = [e for e in everything if e[2] == rev]
        assert [e[0] for e in mine] == [None] * (len(mine) - 1) + [str(rev)]  # the id ends its commit
        for text in (stream(server, f"follow=false&since={rev}"),
                     stream(server, "follow=false", {"Last-Event-ID": str(rev)})):
            # Whatever the server commits by itself meanwhile comes behind.
            told = [e for e in events_of(text)[:-1] if e[2] <= revs[-1]]
            assert told == [e for e in everything if e[2] > rev], rev
    future = server.get("/api/v1/status")["rev"] + 1000
    for query, headers, words in [(f"since={future}", {}, f"since is {future}; the newest rev is"),
                                  ("since=x", {}, "since is"), ("", {"Last-Event-ID": "x"}, "Last-Event-ID is"),
                                  ("sinse=1", {}, "sinse is unknown"), ("follow=1", {}, "true or false")]:
        status, answer = server.request("GET", f"/api/v1/events?{query}", headers=headers)
        assert status == 400 and words in answer["error"]["message"], (query, answer)

    only = cli(server, "events", "--json", "--type", "request_", "--last", "1")
    assert [json.loads(line)["type"] for line in only.stdout.splitlines()] == ["request_completed"]

    # §2.7: each event says its urgency and domain, and a reader can ask for some of them.
    whole = [e for e in data_of(stream(server, "follow=false")) if "rev" in e]
    assert all(e["urgency"] in URGENCIES and e["domain"] in DOMAINS for e in whole)
    for query, wanted in [("domain=model", lambda e: e["domain"] == "model"),
                          ("urgency=p1", lambda e: e["urgency"] <= "p1_high"),
                          ("domain=processing&urgency=p2", lambda e: e["domain"] == "processing"
                           and e["urgency"] <= "p2_normal"),
                          ("session=nobody", lambda e: False)]:
        told = [e for e in data_of(stream(server, "follow=false&" + query))
                if "rev" in e and e["rev"] <= whole[-1]["rev"]]
        assert told == [e for e in whole if wanted(e)], query
    assert {e["domain"] for e in whole} >= {"model", "processing", "device"}
    shown = cli(server, "events", "--json", "--domain", "model", "--urgency", "p2")
    assert {json.loads(line)["domain"] for line in shown.stdout.splitlines()} == {"model"}
    wrong = lockstep(server, "events", "--domain", "memry")
    assert wrong.returncode != 0 and "domain is \"memry\"" in wrong.stderr


def test_a_stream_of_one_session_has_all_that_is_done_for_its_requests(server):
    server.start()
    made = server.request("POST", "/api/v1/sessions", {})[1]["session"]["session_id"]
    mine = server.submit(prompt="a session's", session_id=made)
    other = server.submit(prompt="nobody's")
    assert server.finished(mine)["state"] == "completed" and server.finished(other)["state"] == "completed"
    told = [e for e in data_of(stream(server, f"follow=false&session={made}")) if "rev" in e]
    assert {e["type"] for e in told} >= {
        "session_created", "session_started", "processing_session_created", "request_accepted", "model_load_committed",
        "model_loaded", "inference_request", "inference_completed", "postprocessing_request",
        "postprocessing_completed", "request_completed"}, told
    assert all(made in (e.get("session"), e["subject"]) for e in told)
    assert {e["subject"] for e in told if e["subject"].startswith("req_")} == {mine}
    whole = [e for e in data_of(stream(server, "follow=false")) if "rev" in e]
    assert told == [e for e in whole if made in (e.get("session"), e["subject"])]


def test_what_is_older_than_the_history_is_told(server):
    server.config = "[http]\nhistory_events = 3\n"
    server.start()
    assert server.finished(server.submit(prompt="x"))["state"] == "completed"
    told = events_of(stream(server, "follow=false&since=1"))
    assert told[0][1] == "compacted" and told[-1][1] == "history_end"
    assert len(told) <= 2 + 3 and all(rev > int(told[0][0]) for _, _, rev in told[1:-1])

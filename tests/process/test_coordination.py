"""What a worker's program asks other domains for (§2.4 cross_domain_coordination), with a real worker."""

import json
import sys

from conftest import Server, until

PROGRAM = """
import json, pathlib, sys, threading
from lockstep.worker import Worker

worker = Worker.from_environment()
worker.ready()
folder = pathlib.Path(sys.argv[1])
bad = []
for arguments in ({}, {"requires_memory_allocation": "0B"}, {"requires_memory_allocation": "much"}):
    try:
        worker.coordinate("ses_9", **arguments)
    except ValueError as error:
        bad.append(str(error))
need = worker.coordinate("ses_9", requires_memory_allocation="1GB", dependent_operations=["postprocessing"])
while (answer := worker.coordination_answer(need)) is None:
    threading.Event().wait(0.01)
(folder / "new").write_text(json.dumps({"need": need, "answer": answer, "bad": bad}))
(folder / "new").rename(folder / "told")
worker.run()
"""


def test_a_worker_that_asks_for_a_session_nobody_knows_is_denied_with_the_reason(tmp_path):
    program = tmp_path / "asking.py"
    program.write_text(PROGRAM)
    (tmp_path / "models").mkdir()
    server = Server(tmp_path, tmp_path / "models",
                    f"[workers]\ncommand = {json.dumps([sys.executable, str(program), str(tmp_path)])}\n"
                    '[[worker]]\nname = "one"\nmemory = "1GB"\n')
    server.start()
    try:
        until("the answer", (tmp_path / "told").exists)
        told = json.loads((tmp_path / "told").read_text())
        assert told["need"] == "ses_9/postprocessing", told
        assert told["answer"]["outcome"] == "denied", told
        assert told["answer"]["reason"] == "there is no session ses_9", told
        assert len(told["bad"]) == 3 and "requires nothing" in told["bad"][0], told
        assert not server.get("/api/v1/memory")["grants"]
    finally:
        server.stop()

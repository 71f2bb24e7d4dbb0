"""A whole worker: joins a running orchestrator and turns prompts into flat colours. `worker.py ADDRESS NAME KEY=VALUE...`"""
import fcntl, hashlib, io, os, sys  # noqa: E401
from lockstep import Worker
from PIL import Image

worker = Worker.dial(sys.argv[1], sys.argv[2], memory=1 << 30, **dict(each.split("=", 1) for each in sys.argv[3:]))

def buffer(data, width, height):
    """What the answer says of its descriptor, and the descriptor: a memory file that nobody can change any more."""
    fd = os.memfd_create("pixels", os.MFD_ALLOW_SEALING)
    os.truncate(fd, len(data)), os.pwrite(fd, data, 0), fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 15)
    return {"width": width, "height": height, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}, [fd]

def inference(task):
    w, h = task.body["width"], task.body["height"]
    said, fds = buffer(hashlib.sha256(task.body["prompt"].encode()).digest()[:3] * (w * h), w, h)
    return said | {"execution_time": 0, "total_steps_executed": 1, "peak_bytes": 0, "result_quality_score": 5}, fds

def postprocess(task):  # nothing is ordered here but the encoding
    w, h, png = task.body["source"]["width"], task.body["source"]["height"], io.BytesIO()
    Image.frombytes("RGB", (w, h), os.pread(task.fds[0], w * h * 3, 0)).save(png, "PNG")
    said, fds = buffer(png.getvalue(), w, h)
    quality = {"technical_quality": 5, "visual_quality": 5, "enhancement_effectiveness": 5}
    return {"operations": [], "quality": quality, "output": said, "total_processing_time": 0, "peak_bytes": 0}, fds

worker.on("load", lambda task: ({"bytes": sum(os.fstat(fd).st_size for fd in task.fds), "seconds": 0}, []))
worker.on("release", lambda task: ({"bytes_mapped": 0}, []))
worker.on("inference", inference), worker.on("postprocess", postprocess), worker.ready(), worker.run()

"""Folders that look like a Web UI's, and a program that behaves like one."""

import sys

TREES = {
    "automatic1111": ["launch.py", "webui.py", "modules/textual_inversion/textual_inversion.py"],
    "forge": ["launch.py", "modules/textual_inversion/image_embedding.py", "modules_forge/config.py"],
    "sdnext": ["launch.py", "installer.py", "modules/textual_inversion/textual_inversion.py"],
    "comfyui": ["main.py", "comfy/sd1_clip.py", "models/checkpoints/put_here"],
    "invokeai": ["invokeai.yaml", "databases/invokeai.db"],
}
# A stand-in: a page, a child that does not want to end, and the line that gradio writes.
LAUNCH = """
import http.server, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print("arguments", sys.argv[1:], "backend", os.environ.get("MPLBACKEND"))
print("loading 10%\\rloading 99%\\rloaded by", child.pid)
print(f"Running on local URL:  http://127.0.0.1:{server.server_port}")
server.serve_forever()
"""


def install(program, folder):
    for name in TREES[program]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def with_environment(folder):
    (folder / "venv" / "bin").mkdir(parents=True)
    (folder / "venv" / "bin" / "python").symlink_to(sys.executable)
    return folder

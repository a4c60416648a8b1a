"""A custom node of no nodes, for test_hostile: writes down what ComfyUI does beyond its own work."""

import os
import sys

LOG = os.open(os.environ["COZ_AUDIT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate"),
    *("os.chmod", "os.chown", "os.utime", "sqlite3.connect"),
}
ACTS = {
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"),
    *("os.forkpty", "pty.spawn", "os.kill", "ctypes.dlopen", "pickle.find_class"),
    *("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"),
    *("urllib.Request", "http.client.connect", "webbrowser.open", "ftplib.connect"),
}


IN_A_FOLDER = {"os.mkdir", "os.remove", "os.rmdir"}
"""Their last argument is a descriptor of the folder that the path begins at, or -1."""


def note(event, values):
    base = ""
    if event == "open":
        path, _, flags = values
        if isinstance(path, int) or not flags & WRITING:
            return
        event, values = "write", (path,)
    elif event in CHANGES:
        if event in IN_A_FOLDER and values[-1] >= 0:
            base = os.readlink(f"/proc/self/fd/{values[-1]}")
        event, values = "write", values[: 1 + (event in {"os.rename", "os.link"})]
    elif event not in ACTS:
        return
    for value in values if event == "write" else [values]:
        line = repr(value)
        if event == "write":
            line = os.path.abspath(os.path.join(base, os.fsdecode(value)))
        os.write(LOG, f"{event} {line}\n".encode("utf-8", "backslashreplace"))


sys.addaudithook(note)
NODE_CLASS_MAPPINGS = {}

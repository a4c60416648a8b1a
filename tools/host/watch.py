"""Run a command until it ends. If standard input closes first, kill it and remove a folder.

    python watch.py FOLDER COMMAND...        if FOLDER is "", nothing is removed

Standard input is a pipe whose other end the parent holds. The system closes it when the parent
ends, however it ends, so the command cannot be left behind.
"""

import os
import shutil
import subprocess
import sys
import threading


def main() -> None:
    if hasattr(os, "fork") and (watcher := os.fork()):
        # A Ray worker that ends kills its children, but not its grandchildren. So a grandchild watches.
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(watcher, 0)[1]))
    folder, *command = sys.argv[1:]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    closed = threading.Event()

    def end_with_parent() -> None:
        os.read(0, 1)
        closed.set()
        child.kill()

    threading.Thread(target=end_with_parent, daemon=True).start()
    code = child.wait()
    if folder and closed.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code)


if __name__ == "__main__":
    main()

"""Runs a command on a terminal of its own and prints what it shows there, until nobody has that terminal any more.

Nothing is typed and the input never ends: script(1) types ^D where its own input ends, and Podman, or conmon, now and then shows nothing
of a process that ends soon after that, with any runtime.
"""
import os
import pty
import sys


def main():
    child, master = pty.fork()
    if child == 0:
        os.execvp(sys.argv[1], sys.argv[1:])
    while True:
        try:
            shown = os.read(master, 65536)
        except OSError:
            break
        if not shown:
            break
        os.write(1, shown)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xff)


main()

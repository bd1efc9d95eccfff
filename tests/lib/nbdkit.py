"""nbdkit, a server that is known to be good: what the test tools are tried on."""

import subprocess

import clients
from suite import wait_for


class Nbdkit:
    """An nbdkit on a unix socket."""

    def __init__(self, folder, *arguments):
        self.socket = folder / "nbdkit.sock"
        self.arguments = arguments
        self.uri = clients.unix_uri(self.socket)
        self.start()

    def start(self):
        self.socket.unlink(missing_ok=True)
        command = ["nbdkit", "--foreground", "--exit-with-parent", "--unix", self.socket, *self.arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        wait_for("nbdkit listens", self.socket.exists, 10)

    def kill(self):
        self.process.kill()
        self.process.wait()

    close = kill

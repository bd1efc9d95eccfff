"""The units of systemd, the manual's among them, as systemd itself reads them."""

import re
import shutil
import subprocess
import textwrap
from pathlib import Path

from suite import check, story

TOP = Path(__file__).resolve().parents[2]


@story(minutes=1)
def the_units_are_read_by_systemd(scene):
    """`systemd-analyze verify` finds nothing in the units but that the program is not installed: no unknown line, and no cycle of units
    that wait for each other, for which systemd would leave out one of the boot's own."""
    if not shutil.which("systemd-analyze"):
        scene.note("there is no systemd-analyze here")
        return
    units = scene.folder / "units"
    shutil.copytree(TOP / "systemd", units)
    (units / "blkrep-attach@.service").rename(units / "blkrep-attach@web.service")
    shown = re.search(r"    # /etc/systemd/system/srv-web\.mount\n((?:    .*\n)+)", (TOP / "README.md").read_text())
    (units / "srv-web.mount").write_text(textwrap.dedent(shown[1]))
    command = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(units.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, env={"SYSTEMD_UNIT_PATH": f"{units}:", "PATH": "/usr/bin:/bin"})
    told = [line for line in done.stderr.splitlines() if "/usr/sbin/blkrep is not executable" not in line]
    check(not told, "systemd finds nothing wrong", *told)

"""Volumes as block devices and mounted file systems, through restarts and deaths of what serves them."""

import errno
import hashlib
import os
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import oracle
from attached import LateWrite, Writer, attachment, drop_caches, helper_of, is_as_another_node_left_it, is_fenced_by_another_node
from cluster import Cluster
from processes import end_all
from suite import check, story, wait_for

KERNEL = [path for path in ("/dev/fuse", "/dev/loop-control") if not Path(path).exists()]


def needs_devices(scene):
    """Tells why, where this kernel has no FUSE or no loop devices; fails on a machine that should have them."""
    check(not KERNEL, "the kernel has FUSE and loop devices", KERNEL)


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@story(minutes=2)
def a_volume_is_a_block_device(scene):
    """Attach, write through the device, detach: what was written is on both replicas, and read through NBD. Attaching twice gives the
    same device; one that is mounted is not detached; another node lists it and can have it detached from afar."""
    needs_devices(scene)
    cluster = scene.closes(Cluster(scene, 2)).form()
    cluster.add_volume("web", "64MiB", 2)
    one, two = cluster[1], cluster[2]
    device = one.blkrep("attach", "web").strip()
    check(device.startswith("/dev/loop"), "attach prints the device", device)
    check(one.blkrep("attach", "web/0").strip() == device, "a second attach gives the same device")
    one.refuses("attach", "web", "--exclusive", naming=["attached already"])
    one.refuses("attach", "nothing", naming=["nothing"])
    two.refuses("attach", "web", "--exclusive", naming=["node1"])
    check(two.blkrep("attach", "web").strip().startswith("/dev/loop"), "a node that shares it has a device, too")
    two.blkrep("detach", "web")
    size = int(subprocess.check_output(["blockdev", "--getsize64", device]))
    check(size == 64 << 20, "the device has the volume's size", size)
    data = os.urandom(1 << 20)
    handle = os.open(device, os.O_RDWR)
    os.pwrite(handle, data, 3 << 20)
    os.fsync(handle)
    os.close(handle)
    subprocess.run(["blkdiscard", "--offset", str(3 << 20), "--length", "65536", device], check=True)
    subprocess.run(["blkdiscard", "--zeroout", "--offset", str((3 << 20) + 65536), "--length", "65536", device], check=True)
    listed = two.json("list-attachments")
    check([(a["node"], a["resource"], a["device"]) for a in listed] == [(one.name, "web", device)], "every node lists it", listed)
    two.blkrep("detach", "web", "--node", one.name)
    wait_for("nothing is left", lambda: helper_of(one, "web") is None and not list((one.root / "run/blkrep/attach").iterdir()), 10)
    check(not two.json("list-attachments"), "it is not listed any more")
    expected = bytes(131072) + data[131072:]
    cluster.check_identical("web")
    again = two.blkrep("attach", "web", "--read-only").strip()
    with open(again, "rb") as device:
        device.seek(3 << 20)
        check(device.read(1 << 20) == expected, "the other node reads what was written")
    try:
        handle = os.open(again, os.O_RDWR)
        os.pwrite(handle, b"x" * 4096, 0)
        os.fsync(handle)
        raise AssertionError("a read-only device was written")
    except OSError as error:
        scene.note(f"read-only: {error}")
    two.blkrep("detach", "web")


@story(minutes=2)
def no_file_system_is_made_over_anything(scene):
    """Volumes that hold a partition table, a swap area, another file system, or a program's own bytes, at their beginning or their end:
    `mount --mkfs` refuses each and says what it found, and leaves it as it is."""
    needs_devices(scene)
    cluster = scene.closes(Cluster(scene, 1)).form()
    one, mount = cluster[1], scene.folder / "mnt"
    mount.mkdir()
    scene.callback(lambda: subprocess.run(["umount", "-l", str(mount)], stderr=subprocess.DEVNULL))
    table = struct.pack("<446sBxxxBxxxII48xH", b"", 0, 0x83, 2048, 4096, 0xAA55)
    hold = {
        "dos": (0, table), "swap": ["mkswap", "--quiet"], "xfs": ["mkfs.xfs", "-q"], "data": (1 << 20, b"x" * 100), "end": ((64 << 20) - 1, b"x"),
    }
    for name, what in hold.items():
        cluster.add_volume(name, "320MiB" if name == "xfs" else "64MiB", 1)
        device = one.blkrep("attach", name).strip()
        if isinstance(what, list):
            subprocess.run([*what, device], check=True, stdout=subprocess.DEVNULL)
        else:
            with open(device, "r+b") as there:
                there.seek(what[0])
                there.write(what[1])
        one.blkrep("detach", name)
        said = one.refuses("mount", name, mount, "--mkfs", "--fs", "ext4", naming=[name])
        check((name if name != "end" else "data") in said.split("holds")[-1], "it says what it found", said)
        check(not one.json("list-attachments"), "nothing is left attached")
        device = one.blkrep("attach", name, "--read-only").strip()
        if isinstance(what, tuple):
            with open(device, "rb") as there:
                there.seek(what[0])
                check(there.read(len(what[1])) == what[1], "what was there is there")
        else:
            found = subprocess.run(["blkid", "-p", "-o", "export", device], capture_output=True, text=True).stdout
            check(f"TYPE={name}" in found, "what was there is there", found)
        one.blkrep("detach", name)


def a_volume_and_a_place(scene):
    """Two nodes with the volume `web`, and a directory to mount it at."""
    needs_devices(scene)
    cluster = scene.closes(Cluster(scene, 2)).form()
    cluster.add_volume("web", "64MiB", 2)
    mount = scene.folder / "mnt"
    mount.mkdir()
    return cluster, cluster[1], cluster[2], mount


@story(minutes=3)
def a_mounted_volume_outlives_its_daemon(scene):
    """While a program writes with fsync, its daemon is ended cleanly and started again, then killed and started again. The program sees
    no error, and everything that it synced is there: read on this node after the caches are dropped, and on the other node."""
    cluster, one, two, mount = a_volume_and_a_place(scene)
    one.refuses("mount", "web", mount, naming=["no file system"])
    check(not one.json("list-attachments"), "what could not be mounted is not left attached")
    said = one.blkrep("mount", "web", mount, "--mkfs")
    check("made just now" in said, "a file system was made", said)
    scene.callback(lambda: subprocess.run(["umount", "-l", str(mount)], stderr=subprocess.DEVNULL))
    one.refuses("detach", "web", naming=["in use"])
    one.refuses("attach", "web", "--persistent", naming=["goes with it"])
    # Two that cache one file system would destroy it.
    two.refuses("mount", "web", scene.folder, naming=["node1"])
    two.refuses("attach", "web", naming=["node1"])
    writer = scene.closes(Writer(mount / "log"))
    wait_for("it writes", lambda: writer.written > 20, 20)
    for how in (one.stop, one.kill):
        how()
        before = writer.written
        one.start()
        wait_for("it goes on", lambda: writer.trouble or writer.written > before + 20, 40)
        check(writer.trouble is None, "no error reached the program", writer.trouble)
    writer.close()
    drop_caches()
    writer.check(mount / "log")
    (mount / "big").write_bytes(os.urandom(5 << 20))
    expected = digest(mount / "big")
    one.blkrep("umount", mount)
    check(not one.json("list-attachments"), "the device went with the mount")
    cluster.wait_up_to_date("web", 2)
    said = two.blkrep("mount", "web", mount, "--mkfs")
    check("made" not in said, "a file system that is there is not made again", said)
    writer.check(mount / "log")
    check(digest(mount / "big") == expected, "the other node has the file")
    two.blkrep("umount", mount)
    cluster.check_identical("web")


@story(minutes=2)
def a_mounted_volume_outlives_either_node(scene):
    """Two nodes that decide alone. While a program writes with fsync, its daemon is killed and comes back, is ended and comes back, and
    right after that, when it has hardly been brought up to date, the other node is killed: the program goes on each time."""
    cluster, one, two, mount = a_volume_and_a_place(scene)
    one.blkrep("mount", "web", mount, "--mkfs")
    scene.callback(lambda: subprocess.run(["umount", "-l", str(mount)], stderr=subprocess.DEVNULL))
    writer = scene.closes(Writer(mount / "log"))

    def goes_on(what):
        before = writer.written
        wait_for(f"it writes {what}", lambda: writer.trouble or writer.written > before + 5, 25)
        check(writer.trouble is None, "no error reached the program", writer.trouble)

    # A writer that waits for the other node cannot end without it.
    scene.callback(lambda: two.running or two.start())
    goes_on("at first")
    for how in (one.kill, one.stop):
        how()
        one.start()
        goes_on(f"after {how.__name__}")
    two.kill()
    goes_on("without the other node")
    two.start()
    cluster.wait_up_to_date("web", 2)
    goes_on("with it")
    writer.close()
    drop_caches()
    writer.check(mount / "log")
    one.blkrep("umount", mount)
    cluster.check_identical("web")


@story(minutes=1)
def a_volume_that_is_removed_lets_its_mount_go(scene):
    """A mounted volume is removed with --force, from the other node. Programs get errors at once, instead of waiting for a volume that
    does not come back; the unmount ends, and nothing is left. A new volume of the same name is another one, and is mounted there."""
    _, one, two, mount = a_volume_and_a_place(scene)
    for verb, path, words in [("mount", scene.folder / "none", ["is not there", "mkdir"]), ("umount", mount, ["no volume"])]:
        one.refuses(verb, *(["web"] if verb == "mount" else []), path, naming=words)
    one.blkrep("mount", "web", mount, "--mkfs")
    scene.callback(lambda: subprocess.run(["umount", "-l", str(mount)], stderr=subprocess.DEVNULL))
    with open(mount / "busy", "wb", buffering=0) as file:
        one.refuses("umount", mount, naming=["busy", "fuser"])
        two.refuses("remove-resource", "-q", "web", naming=["in use"])
        two.blkrep("remove-resource", "-q", "--force", "web")
        began = time.monotonic()
        # The node hears of it in a moment.
        error = wait_for("a write fails", lambda: why_not_written(file), 20)
        scene.note(f"{error}, after {time.monotonic() - began:.1f} s")
    done = one.run("umount", mount)
    check(done.returncode == 0 and time.monotonic() - began < 20, "it is unmounted, soon", done)
    wait_for("nothing is left", lambda: not one.json("list-attachments") and not list((one.root / "run/blkrep/attach").iterdir()), 20)
    one.blkrep("add-volume", "web", "64MiB", "--deploy", "2")
    check("made just now" in one.blkrep("mount", "web", mount, "--mkfs"), "the new one is new")
    check(not (mount / "busy").exists(), "and holds nothing of the former one")
    one.blkrep("umount", mount)


def why_not_written(file):
    """Writes something to a file, durably; why that failed, if it did."""
    try:
        os.write(file.fileno(), b"lost")
        os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


@story(minutes=2)
def a_killed_helper_leaves_nothing(scene):
    """The helper is killed while its file system is mounted: programs get errors, and after the unmount the volume can be mounted again
    with everything that was synced. A persistent attachment comes back by itself."""
    needs_devices(scene)
    cluster = scene.closes(Cluster(scene, 2)).form()
    cluster.add_volume("web", "64MiB", 2)
    one = cluster[1]
    mount = scene.folder / "mnt"
    mount.mkdir()
    # A first try that makes nothing leaves the volume new.
    for wrong in (["--mkfs-opts=-n"], ["--mkfs-opts=/dev/null"], ["--mkfs-opts=--bogus"], ["--mount-opts=loop"]):
        one.refuses("mount", "web", mount, "--mkfs", *wrong, naming=[wrong[0].split("=")[1]])
    check(not one.json("list-attachments"), "what could not be mounted is not left attached")
    half = one.root / "run/blkrep/attach/half@0"
    half.mkdir(parents=True, mode=0o700)
    (half / "lock").touch()
    wait_for("what a helper has half removed is taken away", lambda: not half.exists(), 10)
    one.blkrep("mount", "web", mount, "--mkfs", "--fs", "ext4")
    scene.callback(lambda: subprocess.run(["umount", "-l", str(mount)], stderr=subprocess.DEVNULL))
    with open(mount / "kept", "wb", buffering=0) as file:
        file.write(b"kept" * 1000)
        os.fsync(file.fileno())
    end_all([helper_of(one, "web")])
    wait_for("it is not listed any more", lambda: not one.json("list-attachments"), 10)
    one.refuses("umount", mount, naming=["has died", f"umount {mount}"])
    subprocess.run(["umount", str(mount)], check=True)
    wait_for("nothing is left", lambda: not list((one.root / "run/blkrep/attach").iterdir()), 10)
    one.blkrep("mount", "web", mount)
    check((mount / "kept").read_bytes() == b"kept" * 1000, "what was synced is there")
    one.blkrep("umount", mount)
    first = one.blkrep("attach", "web", "--persistent").strip()
    helper = helper_of(one, "web")
    end_all([helper])
    wait_for("it is back", lambda: attachment(one, "web")["persistent"] and helper_of(one, "web") not in (None, helper), 20)
    check(Path(attachment(one, "web")["device"]).exists(), "it is a device again", first)
    one.restart()
    check(attachment(one, "web")["persistent"], "it is still known after a restart of the daemon")
    one.blkrep("detach", "web")
    check(not one.json("list-attachments"), "it does not come back once it was detached")


@story(minutes=2)
def an_attachment_is_fenced_when_another_node_took_over(scene):
    """A node's daemon dies with a volume attached; the volume is used on another node; the daemon returns. What the first node still had
    to write never reaches the volume: its device fails, until it is attached anew."""
    needs_devices(scene)
    cluster = scene.closes(Cluster(scene, 2)).form()
    cluster.add_volume("web", "64MiB", 2)
    is_fenced_by_another_node(cluster)
    cluster[1].refuses("attach", "web", naming=["another node"])
    cluster[1].blkrep("detach", "web")
    is_as_another_node_left_it(cluster)


@story(minutes=2)
def an_attachment_is_fenced_when_another_client_of_its_node_was_first(scene):
    """A node's daemon dies with a volume attached. When it is back, somebody's NBD client on the same node comes before the attachment does,
    writes, and goes: what the attachment has cached may be old, so its device fails until it is attached anew."""
    needs_devices(scene)
    cluster = scene.closes(Cluster(scene, 2)).form()
    one = cluster[1]
    cluster.add_volume("web", "64MiB", 2)
    handle = os.open(one.blkrep("attach", "web", "--exclusive").strip(), os.O_RDWR | os.O_SYNC)
    os.pwrite(handle, b"1" * 4096, 0)
    helper = helper_of(one, "web")
    one.kill()
    os.kill(helper, signal.SIGSTOP)
    try:
        one.start()
        stranger = wait_for("another client is served", lambda: served(one, "web"), 20)
        stranger.pwrite(b"3" * 4096, 0)
        stranger.flush()
        stranger.shutdown()
    finally:
        os.kill(helper, signal.SIGCONT)
    late = LateWrite(handle, b"2" * 4096, 0)
    late.thread.join(60)
    check(late.outcome == errno.EIO, "what the attachment writes fails with EIO", late.outcome)
    os.close(handle)
    cluster[1].blkrep("detach", "web")
    is_as_another_node_left_it(cluster)


def served(node, resource):
    try:
        return oracle.connected(node.uri(resource))
    except oracle.nbd.Error:
        return None


@story(minutes=2)
def mounted_file_systems_grow_with_their_volumes(scene):
    """A volume is resized while its file system is mounted and written: the device follows, and the file system, with no error; also
    when the daemon is killed right after it has agreed. What was attached by hand grows, too. (An ext4 grows in the virtual machine's
    stories: it wants CAP_SYS_RESOURCE, which containers often lack.)"""
    needs_devices(scene)
    cluster = scene.closes(Cluster(scene, 2)).form()
    one = cluster[1]
    cluster.add_volume("xfs", "320MiB", 2)
    mount = scene.folder / "mnt"
    mount.mkdir()
    one.blkrep("mount", "xfs", mount, "--mkfs", "--fs", "xfs")
    scene.callback(lambda: subprocess.run(["umount", "-l", str(mount)], stderr=subprocess.DEVNULL))
    writer = scene.closes(Writer(mount / "log"))
    size = lambda: os.statvfs(mount).f_blocks * os.statvfs(mount).f_frsize >> 20
    for after in (400, 500):
        before = writer.written
        wait_for("it writes", lambda: writer.written > before + 5, 20)
        one.blkrep("resize-volume", "xfs", f"{after}MiB")
        if after == 500:
            one.kill()
            one.start()
        wait_for("it has grown", lambda: size() > after - 100, 40)
    writer.close()
    check(writer.trouble is None, "no error reached the program", writer.trouble)
    data = os.urandom(400 << 20)
    (mount / "big").write_bytes(data)
    drop_caches()
    writer.check(mount / "log")
    check((mount / "big").read_bytes() == data, "what is in the new part is there")
    one.blkrep("umount", mount)
    cluster.check_identical("xfs")
    cluster.add_volume("raw", "16MiB", 2)
    device = one.blkrep("attach", "raw").strip()
    size = lambda: int(subprocess.check_output(["blockdev", "--getsize64", device]))
    handle = os.open(device, os.O_RDWR)
    one.blkrep("resize-volume", "raw", "32MiB")
    wait_for("the device has grown", lambda: size() == 32 << 20, 20)
    os.pwrite(handle, b"x" * 4096, (32 << 20) - 4096)
    os.fsync(handle)
    os.close(handle)
    one.blkrep("detach", "raw")
    cluster.check_identical("raw")


@story(minutes=2)
def what_is_persistent_is_attached_after_a_reboot(scene):
    """All nodes go down with everything that ran on them, and what the running system had noted is gone. When they start, the volumes
    that were attached for good are devices again, one of them read-only as it was; a volume that was only attached is not."""
    needs_devices(scene)
    cluster = scene.closes(Cluster(scene, 2)).form()
    one = cluster[1]
    for name in ("web", "db", "once"):
        cluster.add_volume(name, "16MiB", 2)
    device = one.blkrep("attach", "web", "--persistent").strip()
    with open(device, "r+b", buffering=0) as there:
        there.write(b"kept" * 1024)
        os.fsync(there.fileno())
    one.blkrep("attach", "db", "--persistent", "--read-only")
    one.blkrep("attach", "once")
    one.refuses("attach", "web", "--via", "nbd", naming=["another way"])
    cluster[2].refuses("attach", "once", "--via", "nbd", naming=["NBD client"])
    end_all([helper_of(one, name) for name in ("web", "db", "once")] + [node.pid for node in cluster.nodes])
    for place in (one.root / "run/blkrep/attach").iterdir():
        subprocess.run(["umount", "-l", str(place / "fuse")], stderr=subprocess.DEVNULL)
    shutil.rmtree(one.root / "run/blkrep")
    for node in cluster.nodes:
        node.start()
    back = lambda: {a["resource"]: a for a in one.json("list-attachments")}
    wait_for("they are attached again", lambda: {"web", "db"} <= back().keys(), 60)
    now = back()
    check(now.keys() == {"web", "db"} and all(a["persistent"] and a["via"] == "fuse" for a in now.values()), "those alone", now)
    check(now["db"]["read_only"] and not now["web"]["read_only"], "as they were asked for", now)
    with open(one.root / "run/blkrep/attach/web@0/device", "rb") as there:
        check(there.read(4096) == b"kept" * 1024, "it holds what it held, at the same link")
    for name in ("web", "db"):
        one.blkrep("detach", name)

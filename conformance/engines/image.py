"""Writes an archive of `docker save` with one small image, localhost/busybox:1, made of the host's static busybox."""
import hashlib
import io
import json
import sys
import tarfile

APPLETS = """sh cat echo ls sleep true false id ps env hostname touch dd kill wget ip mount grep head wc mkdir rm stat chmod df free uname
yes sed stty tty test printf nproc pwd nc httpd""".split()


def add(archive, name, data=None, mode=0o755, link=None):
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    if link:
        entry.type, entry.linkname = tarfile.SYMTYPE, link
        archive.addfile(entry)
    elif data is None:
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    else:
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


def layer():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for folder in "bin etc root proc sys dev run var".split():
            add(archive, folder)
        add(archive, "tmp", mode=0o1777)
        with open("/usr/bin/busybox", "rb") as busybox:
            add(archive, "bin/busybox", busybox.read())
        for applet in APPLETS:
            add(archive, "bin/" + applet, link="busybox")
        users = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n"
        add(archive, "etc/passwd", users, 0o644)
        add(archive, "etc/group", b"root:x:0:\nuser:x:1000:\n", 0o644)
        add(archive, "etc/hosts", b"127.0.0.1 localhost\n", 0o644)
    return out.getvalue()


def main():
    content = layer()
    config = json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]},
    }).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": ["localhost/busybox:1"], "Layers": ["layer.tar"]}]
    with tarfile.open(sys.argv[1], "w") as archive:
        add(archive, name, config, 0o644)
        add(archive, "layer.tar", content, 0o644)
        add(archive, "manifest.json", json.dumps(manifest).encode(), 0o644)


main()

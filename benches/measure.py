"""What the scripts that measure share: running a program with its time and memory, the machine they ran on, figures as text."""
import argparse
import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BLOCK = 1 << 20


class Failed(Exception):
    pass


class Run:
    """One finished process: wall seconds, peak resident bytes. What is below this script's own (some 20 MiB) cannot be seen."""

    def __init__(self, argv, env, stdin=None, stdout=None, cwd=None, settle=True):
        if settle:
            # What others have yet to write would be written in our time.
            os.sync()
        with open(stdin or os.devnull, "rb") as source, tempfile.TemporaryFile() as errors:
            with open(stdout or os.devnull, "wb") as sink:
                begun = time.perf_counter()
                process = subprocess.Popen([str(word) for word in argv], env=env, stdin=source, stdout=sink, stderr=errors, cwd=cwd)
                _, status, usage = os.wait4(process.pid, 0)
                self.seconds = time.perf_counter() - begun
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                errors.seek(0)
                tail = errors.read().decode(errors="replace").strip()[-500:]
                raise Failed(f"{' '.join(map(str, argv))} ended with {process.returncode}: {tail}")
        self.rss = usage.ru_maxrss * 1024


def read_once(path):
    with open(path, "rb") as file:
        while file.read(BLOCK):
            pass


def hash_of(file):
    digest = hashlib.blake2b()
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


def hash_file(path):
    with open(path, "rb") as file:
        return hash_of(file)


def tree_summary(folder):
    """Paths, kinds, sizes and contents below a folder."""
    digest = hashlib.blake2b()
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names) + [name for name in folders if os.path.islink(os.path.join(where, name))]:
            path = os.path.join(where, name)
            digest.update(os.fsencode(os.path.relpath(path, folder)) + b"\0")
            if os.path.islink(path):
                digest.update(os.fsencode(os.readlink(path)) + b"\0")
            elif os.path.isfile(path):
                digest.update(hash_file(path).encode())
    return digest.hexdigest()


def stored(folder):
    """Bytes of all files below a folder."""
    return sum(os.lstat(os.path.join(where, name)).st_size for where, _, names in os.walk(folder) for name in names)


def shown(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def nights_of(folder, suffix=None):
    """day0.SUFFIX, day1.SUFFIX, ... of a folder, in order."""
    found = {}
    for path in folder.iterdir():
        name = re.fullmatch(r"day(\d+)(\..*)?", path.name)
        if name and (suffix is None or (name[2] or "") == suffix):
            if int(name[1]) in found:
                sys.exit(f"{folder} has {path.name} and {found[int(name[1])].name}; say which with --suffix")
            found[int(name[1])] = path
    if sorted(found) != list(range(len(found))) or len(found) < 2:
        sys.exit(f"{folder} needs day0, day1, ... without gaps, two at least; a suffix of their own is welcome")
    return [found[day] for day in range(len(found))]


def size(text):
    found = re.fullmatch(r"(\d+)([KMG]?)", text.upper().removesuffix("IB").removesuffix("B"))
    if not found or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no size")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]]


def machine(work):
    def first(path, pattern, otherwise="?"):
        try:
            found = re.search(pattern, Path(path).read_text(), re.M)
        except OSError:
            return otherwise
        return found[1].strip().strip('"') if found else otherwise

    memory = int(first("/proc/meminfo", r"^MemTotal:\s*(\d+)", "0")) / (1 << 20)
    disk = subprocess.run(["df", "--output=fstype,source", work], capture_output=True, text=True).stdout.split()[-2:]
    return {
        "cpu": first("/proc/cpuinfo", r"^model name\s*:\s*(.*)$", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "system": first("/etc/os-release", r"^PRETTY_NAME=(.*)$"),
        "kernel": platform.release(),
        "file_system": " on ".join(disk) or "?",
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def machine_text(host):
    return (
        f"{host['cpu']}, {host['cores']} cores, {host['memory_gib']} GiB, {host['system']}, Linux {host['kernel']}, "
        f"{host['file_system']}; load {host['load'][0]} at the start"
    )

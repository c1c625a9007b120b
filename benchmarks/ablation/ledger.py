"""What was measured, one file per profile, kept as the runs end; figures of two machines never share one."""

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Ledger:
    """Results by task name. A result counts only for the very command, and the very results it was built on."""

    def __init__(self, file: Path, machine: str) -> None:
        self.file, self.machine, self.lock = file, machine, threading.Lock()
        self.results: dict[str, dict[str, Any]] = {}
        self.facts: dict[str, Any] = {}

    @classmethod
    def read(cls, file: Path) -> "Ledger | None":
        """What was measured, wherever that was; None where nothing was."""
        if not file.exists():
            return None
        stored = json.loads(file.read_text())
        ledger = cls(file, stored["machine"])
        ledger.results, ledger.facts = stored["results"], stored["facts"]
        return ledger

    @classmethod
    def open(cls, file: Path, machine: str) -> "Ledger":
        """To add to on this machine. SystemExit where another machine measured what is there."""
        ledger = cls.read(file) or cls(file, machine)
        if ledger.machine != machine:
            raise SystemExit(
                f"{file} was measured on another machine ({ledger.machine}; this is {machine}), and no table mixes "
                "machines: name another --out, or delete it to begin anew"
            )
        return ledger

    def find(self, name: str, identity: str) -> dict[str, Any] | None:
        """The result of a task, if it is of this identity."""
        result = self.results.get(name)
        return result if result is not None and result["identity"] == identity else None

    def put(self, name: str, result: Mapping[str, Any]) -> None:
        """Keep a result, on disk too."""
        with self.lock:
            self.results[name] = dict(result)
            self.write()

    def write(self) -> None:
        """All of it, atomically."""
        content = {"machine": self.machine, "facts": self.facts, "results": dict(sorted(self.results.items()))}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        staged = self.file.with_suffix(".new")
        staged.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        staged.replace(self.file)


def identity(command: tuple[str, ...], built_on: Mapping[str, str]) -> str:
    """Hex digest of what decides a result. built_on: task to the digest of what it made (`Ledger` key "made")."""
    return hashlib.sha256(json.dumps([command, dict(sorted(built_on.items()))]).encode()).hexdigest()[:16]

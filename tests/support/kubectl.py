"""The real kubectl."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Refused(Exception):
    """kubectl exited with an error; the text is its output."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl with one kubeconfig and namespace."""

    kubeconfig: Path
    namespace: str = "default"

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Its output. Raises Refused with its error."""
        command = ["kubectl", f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise Refused(done.stderr.strip())
        return done.stdout

    def apply(self, value: dict[str, Any], *options: str) -> dict[str, Any]:
        """The object as the server stores it, or with --dry-run=server would store it."""
        out = self("apply", "-f", "-", "-o", "json", *options, stdin=json.dumps(value))
        stored: dict[str, Any] = json.loads(out)
        return stored

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("get", kind, name, "-o", "json"))
        return found

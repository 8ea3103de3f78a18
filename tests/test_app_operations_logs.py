import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def in_a_process(code: str) -> list[str]:
    """What the log has after a process that ends behind this code."""
    begin = "import logging, structlog\nfrom app.operations import logs\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        timeout=300,
        check=False,
    )
    return done.stderr.decode().splitlines()


@pytest.mark.parametrize("style", ["text", "json"])
def test_an_error_is_logged_without_the_values_of_variables(style: str) -> None:
    lines = in_a_process(
        f"logs.configure_logging('info', '{style}')\n"
        "def fail(key):\n"
        "    raise RuntimeError('surprise')\n"
        "try:\n"
        "    fail('hunter' + str(2))\n"
        "except RuntimeError:\n"
        "    structlog.get_logger('paellera').exception('unhandled_error')\n"
        "    logging.getLogger('uvicorn').exception('unhandled_error')\n"
    )
    text = "\n".join(lines)
    assert text.count("unhandled_error") == text.count("RuntimeError: surprise") == 2
    assert "in fail" in text
    assert "hunter2" not in text

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


def test_what_was_logged_before_the_end_is_written() -> None:
    lines = in_a_process(
        "logs.configure_logging('info', 'text')\n"
        "for number in range(2000):\n"
        "    structlog.get_logger('paellera').info('event', number=number)\n"
        "raise SystemExit(1)"
    )
    assert [line.rpartition("=")[2] for line in lines] == [str(number) for number in range(2000)]


def test_a_log_says_that_lines_are_missing() -> None:
    lines = in_a_process(
        "import functools, threading\n"
        "from app.operations import log_writer\n"
        "held, write = threading.Event(), log_writer.write_line\n"
        "log_writer.write_line = lambda *arguments: (held.wait(60), write(*arguments))\n"
        "logs.LineWriter = functools.partial(log_writer.LineWriter, most=10)\n"
        "handler = logs.configure_logging('info', 'json')\n"
        "for number in range(30): logging.error(f'line {number}')\n"
        "held.set(); handler.flush()\n"
        "logging.error('behind')"
    )
    assert len(lines) == 12
    assert '"event": "line 9"' in lines[9]
    assert '"event": "log_lines_dropped: 20' in lines[10]
    assert '"event": "behind"' in lines[11]


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


def test_an_application_under_another_server_logs_no_values_either() -> None:
    code = (
        "from app.server import create_app\n"
        "create_app(lambda: None)\n"
        "def fail(key):\n"
        "    raise RuntimeError('surprise')\n"
        "try:\n"
        "    fail('hunter' + str(2))\n"
        "except RuntimeError:\n"
        "    structlog.get_logger('paellera').exception('unhandled_error')\n"
    )
    text = "\n".join(in_a_process("import os; os.dup2(2, 1)\n" + code))
    assert "unhandled_error" in text
    assert "RuntimeError: surprise" in text
    assert "hunter2" not in text

"""Asks a running service for captions, as a client on another machine would: standard library only.

    python docker/check_service.py ADDRESS PHOTO LANGUAGE...

Waits until the service is ready, posts the photo, prints the reply, and fails unless every language got one.
"""

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

READY_WITHIN = 180  # seconds; a cold start reads a gigabyte of libraries
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the service is on this machine


def wait_until_ready(address: str) -> float:
    """The seconds it took. Raises TimeoutError."""
    started = time.monotonic()
    while time.monotonic() - started < READY_WITHIN:
        try:
            with NO_PROXY.open(f"{address}/readyz", timeout=5):
                return time.monotonic() - started
        except (urllib.error.URLError, OSError):  # not listening yet, or 503 while the model is loaded
            time.sleep(0.5)
    raise TimeoutError(f"{address}/readyz was not ready within {READY_WITHIN} s")


def main(address: str, photo: Path, languages: list[str]) -> int:
    print(f"ready after {wait_until_ready(address):.1f} s")
    query = urlencode([("language", language) for language in languages])
    request = urllib.request.Request(
        f"{address}/v1/captions?{query}",
        data=photo.read_bytes(),
        headers={"Content-Type": "application/octet-stream"},
    )
    try:
        with NO_PROXY.open(request, timeout=120) as response:
            reply = json.load(response)
    except urllib.error.HTTPError as error:
        print(f"error: {error}: {error.read().decode()}", file=sys.stderr)
        return 1
    print(json.dumps(reply, ensure_ascii=False, indent=2))
    captions = {caption["language"]: caption["text"] for caption in reply["images"][0]["captions"]}
    unanswered = [language for language in languages if not captions.get(language, "").strip()]
    if unanswered:
        print(f"error: no caption in {', '.join(unanswered)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))

"""Ask a service's operations port whether it is ready: the health check of the containers.

Run as `python -m speech_lib.healthcheck`, because the images hold no curl. Exits with 0 if
`/readyz` answers 200, else with 1, and prints the answer for `docker inspect`.
"""

import http.client
import os
import sys

_TIMEOUT_SECONDS = 3.0


def main() -> int:
    """Return the exit code of the check."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", int(os.environ["OPS_PORT"]), timeout=_TIMEOUT_SECONDS
    )
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        sys.stdout.write(answer.read(1000).decode(errors="replace") + "\n")
    except OSError as error:
        sys.stdout.write(f"no answer: {type(error).__name__}\n")
        return 1
    finally:
        connection.close()
    return 0 if answer.status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main())

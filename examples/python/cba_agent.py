"""Login requests from cba-agent: from the command, or from a running agent's socket. Uses only the standard library.

    request = cba_agent.login_request()                                            # cba-agent sign, with its configuration
    request = cba_agent.login_request("--slot", "0")                               # with options
    request = cba_agent.login_request(socket="/run/cba-agent/agent.sock")          # an agent, without the command

Send a request once, at once: {"method": ..., "url": ..., "headers": {...}, "body": {...}}.

The command is `cba-agent` in PATH, or the path in the environment variable CBA_AGENT: cron sets a short PATH.
"""

import email.utils
import http.client
import json
import os
import socket as sockets
import subprocess
import time

# A retry helps if the token or an agent is unavailable or busy. It does not help with other codes, above all not with a
# refused PIN.
RETRYABLE = {6, 9}

# Seconds by which two clocks may differ: a login takes time as well.
SAME_TIME = 30

# The codes of an agent's answers, as exit codes of `cba-agent sign --socket`.
CODES = {
    "bad_request": 2, "too_large": 2, "not_found": 2, "method_not_allowed": 2, "not_allowed": 5, "policy": 5,
    "rate_limited": 9, "busy": 9, "request_timeout": 9, "token_unavailable": 6, "timeout": 6, "pin_refused": 4,
    "signature_invalid": 7, "audit_unavailable": 1, "unexpected": 1,
}  # fmt: skip


class CbaAgentError(Exception):
    """There is no payload. `code` is the exit code of `cba-agent sign`; `retryable` says whether to try again later."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
        self.retryable = code in RETRYABLE


def login_request(*options, socket=None, job=None, auth_url="https://auth.anaplan.com", timeout=60):
    """A fresh login request; with `socket` from an agent, which `auth_url` is then put into."""
    if socket is None:
        return _by_command(options, job)
    return _by_socket(socket, job, auth_url, timeout)


def _by_command(options, job):
    program = os.environ.get("CBA_AGENT") or "cba-agent"
    command = [program, "sign", *options, *(["--job", job] if job else [])]
    try:
        ended = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    except OSError as error:
        hint = "set CBA_AGENT=/path/to/cba-agent; PATH is " + os.environ.get("PATH", "")
        raise CbaAgentError(2, f"cannot run {program}: {error}: {hint}") from error
    # UTF-8 in every locale.
    if ended.returncode != 0:
        raise CbaAgentError(ended.returncode, ended.stderr.decode("utf-8", "replace").strip())
    return json.loads(ended.stdout)


def refusal(status, text, headers):
    """Why Anaplan refused a login, in one sentence, with a word about this host's clock.

    `headers` are those of the answer: a v2 payload carries the time, so a clock that is wrong is one of the reasons.
    """
    return f"Anaplan refused the login ({status}): {text[:300]}; {clock(headers.get('Date'))}"


def clock(date):
    """How this host's clock compares with the `Date` of an answer."""
    try:
        seconds = round(time.time() - email.utils.parsedate_to_datetime(date).timestamp())
    except (TypeError, ValueError):
        return "the answer has no time to compare this host's clock with"
    if abs(seconds) < SAME_TIME:
        return "this host's clock agrees with the service's"
    where = "ahead of" if seconds > 0 else "behind"
    remedy = "timedatectl set-ntp true (for a container, on its host)"
    return f"this host's clock is {abs(seconds)} s {where} the service's, and a login carries the time: {remedy}"


def keep_headers(request):
    """An `auth=` for `requests` that changes nothing: without one, an entry of ~/.netrc replaces the Authorization header."""
    return request


def _by_socket(path, job, auth_url, timeout):
    connection = _UnixConnection(path, timeout)
    try:
        connection.request("POST", "/sign", json.dumps({"job": job} if job else {}))
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise CbaAgentError(9, f"no agent answers at {path}: {error}") from error
    finally:
        connection.close()
    document = json.loads(body)
    if status != 200:
        code = document.get("code", "unexpected")
        raise CbaAgentError(CODES.get(code, 1), f"the agent at {path} says {code}: {document.get('title', status)}")
    document["url"] = auth_url.rstrip("/") + "/token/authenticate"
    return document


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

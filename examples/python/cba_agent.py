"""Login requests from cba-agent: from the command, or from a running agent's socket. Standard library alone.

    request = cba_agent.login_request()                                            # cba-agent sign, as it is configured
    request = cba_agent.login_request("--slot", "0")                               # with options of its own
    request = cba_agent.login_request(socket="/run/cba-agent/agent.sock")          # an agent, without the command

A request is what is to be sent, once and now: {"method": ..., "url": ..., "headers": {...}, "body": {...}}.
"""

import http.client
import json
import socket as sockets
import subprocess

# What a second try can mend: the token or an agent that is away or busy. All else fails for good, the PIN above all.
RETRYABLE = {6, 9}

# Answers of an agent, as the exit codes of `cba-agent sign --socket`.
CODES = {
    "bad_request": 2, "too_large": 2, "not_found": 2, "method_not_allowed": 2, "not_allowed": 5, "policy": 5,
    "rate_limited": 9, "busy": 9, "request_timeout": 9, "token_unavailable": 6, "timeout": 6, "pin_refused": 4,
    "signature_invalid": 7, "audit_unavailable": 1, "unexpected": 1,
}  # fmt: skip


class CbaAgentError(Exception):
    """No payload was had. `code` is the exit code of `cba-agent sign`; `retryable` says whether to try again later."""

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
    command = ["cba-agent", "sign", *options, *(["--job", job] if job else [])]
    ended = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if ended.returncode != 0:
        raise CbaAgentError(ended.returncode, ended.stderr.strip())
    return json.loads(ended.stdout)


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

"""anaplan-sdk with a certificate whose key is in a PKCS#11 token: its public `auth=` hook, filled by cba-agent.

    from anaplan_sdk import Client
    from anaplan_sdk_auth import CbaAgentAuth

    anaplan = Client(auth=CbaAgentAuth("--slot", "0"))                               # with the command
    anaplan = Client(auth=CbaAgentAuth(socket="/run/cba-agent/agent.sock"))          # with an agent

The first request logs in. The Anaplan token is used until shortly before its end, and then exchanged for a new one without a
signature. If that fails, or after a 401, there is one new login for all threads.
"""

import asyncio
import threading
import time

import cba_agent

try:  # The SDK's own HTTP library, by the name that its version has.
    import httpx2 as httpx
except ImportError:
    import httpx

# Seconds before its end at which a token is exchanged, and at which it is no longer used.
EXCHANGE_BEFORE = 300
UNUSABLE_BEFORE = 30
LIFETIME = 35 * 60


class CbaAgentAuth(httpx.Auth):
    """Hands the Anaplan token to each request. The arguments are those of `cba_agent.login_request`."""

    def __init__(self, *options, **arguments):
        self._options, self._arguments = options, arguments
        self._lock, self._async_lock = threading.Lock(), asyncio.Lock()
        self._token, self._ends, self._base = None, 0.0, None

    def sync_auth_flow(self, request):
        refused = None
        for _ in range(2):
            token = self._usable(refused)
            if token is None:
                with self._lock:
                    token = self._usable(refused)
                    if token is None and (exchange := self._exchange(refused)):
                        answer = yield exchange
                        answer.read()
                        token = self._take(answer)
                    if token is None:
                        answer = yield self._login()
                        answer.read()
                        token = self._take(answer, must=True)
            request.headers["Authorization"] = f"AnaplanAuthToken {token}"
            response = yield request
            if response.status_code != 401:
                return
            # The token ended early. Retry once: after a second refusal, its age is not the cause.
            refused = token

    async def async_auth_flow(self, request):
        refused = None
        for _ in range(2):
            token = self._usable(refused)
            if token is None:
                async with self._async_lock:
                    token = self._usable(refused)
                    if token is None and (exchange := self._exchange(refused)):
                        answer = yield exchange
                        await answer.aread()
                        token = self._take(answer)
                    if token is None:
                        # The token may need a touch: other tasks must not wait for it.
                        answer = yield await asyncio.to_thread(self._login)
                        await answer.aread()
                        token = self._take(answer, must=True)
            request.headers["Authorization"] = f"AnaplanAuthToken {token}"
            response = yield request
            if response.status_code != 401:
                return
            refused = token

    def _usable(self, refused):
        is_fresh = self._token != refused and time.time() < self._ends - EXCHANGE_BEFORE
        return self._token if is_fresh else None

    def _exchange(self, refused):
        if self._token is None or self._token == refused or time.time() >= self._ends - UNUSABLE_BEFORE:
            return None
        header = {"Authorization": f"AnaplanAuthToken {self._token}"}
        return httpx.Request("POST", self._base + "/token/refresh", headers=header)

    def _login(self):
        login = cba_agent.login_request(*self._options, **self._arguments)
        self._base = login["url"].removesuffix("/token/authenticate")
        return httpx.Request(login["method"], login["url"], headers=login["headers"], json=login["body"])

    def _take(self, answer, must=False):
        if not answer.is_success:
            if must:
                raise cba_agent.CbaAgentError(5, cba_agent.refusal(answer.status_code, answer.text, answer.headers))
            return None
        info = answer.json()["tokenInfo"]
        self._token = info["tokenValue"]
        self._ends = min(info.get("expiresAt", float("inf")) / 1000, time.time() + LIFETIME)
        return self._token

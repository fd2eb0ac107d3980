"""The unmodified anaplan-sdk on the tests' service, through `examples/python/anaplan_sdk_auth.py`.

    sdk.py SERVICE_URL SOCKET|-     prints the SDK's list, again for each line on standard input
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx2
from anaplan_sdk import AsyncClient, Client
from anaplan_sdk_auth import CbaAgentAuth

SERVICE, SOCKET = sys.argv[1:]


def to_service(request):
    """The SDK's addresses are fixed; its `transport=` redirects them here."""
    if request.url.host == "api.anaplan.com":
        request.url = httpx2.URL(SERVICE).copy_with(raw_path=request.url.raw_path)
        request.headers["Host"] = request.url.netloc.decode()
    return request


class Transport(httpx2.HTTPTransport):
    def handle_request(self, request):
        return super().handle_request(to_service(request))


class AsyncTransport(httpx2.AsyncHTTPTransport):
    async def handle_async_request(self, request):
        return await super().handle_async_request(to_service(request))


def auth():
    if SOCKET == "-":
        return CbaAgentAuth("--slot", "0", "--auth-url", SERVICE)
    return CbaAgentAuth(socket=SOCKET, auth_url=SERVICE)


def names(workspaces):
    return " ".join(f"{workspace.id} {workspace.name}" for workspace in workspaces)


def main():
    client = Client(auth=auth(), transport=Transport())
    for line in sys.stdin:
        if line.strip() == "threads":
            with ThreadPoolExecutor(8) as pool:
                found = {names(all_) for all_ in pool.map(lambda _: client.get_workspaces(), range(16))}
        elif line.strip() == "async":
            found = asyncio.run(together())
        else:
            found = {names(client.get_workspaces())}
        print(*found, flush=True)


async def together():
    client = AsyncClient(auth=auth(), transport=AsyncTransport())
    return {names(all_) for all_ in await asyncio.gather(*(client.get_workspaces() for _ in range(8)))}


main()

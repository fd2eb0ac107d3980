"""Logs in with `requests`, lists workspaces, logs out.

    anaplan_requests.py [OPTIONS OF cba-agent sign]
"""

import os
import sys

import cba_agent
import requests

API = os.environ.get("ANAPLAN_API_URL", "https://api.anaplan.com")


def main():
    try:
        login = cba_agent.login_request(*sys.argv[1:])
    except cba_agent.CbaAgentError as error:
        print(error, file=sys.stderr)
        return error.code
    answer = requests.post(login["url"], headers=login["headers"], json=login["body"], timeout=60)
    answer.raise_for_status()
    session = requests.Session()
    session.headers["Authorization"] = "AnaplanAuthToken " + answer.json()["tokenInfo"]["tokenValue"]
    try:
        workspaces = session.get(f"{API}/2/0/workspaces", timeout=60)
        workspaces.raise_for_status()
        for workspace in workspaces.json()["workspaces"]:
            print(workspace["id"], workspace["name"])
    finally:
        session.post(login["url"].replace("/token/authenticate", "/token/logout"), timeout=60)
    return 0


if __name__ == "__main__":
    sys.exit(main())

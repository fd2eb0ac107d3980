"""Logs in with `requests`, lists workspaces, logs out.

    anaplan_requests.py [OPTIONS OF cba-agent sign]
"""

import os
import sys

# Find the module beside this file, also with PYTHONSAFEPATH.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cba_agent  # noqa: E402
import requests  # noqa: E402

API = os.environ.get("ANAPLAN_API_URL", "https://api.anaplan.com")


def main():
    session = requests.Session()
    session.auth = cba_agent.keep_headers
    try:
        login = cba_agent.login_request(*sys.argv[1:])
        answer = session.post(login["url"], headers=login["headers"], json=login["body"], timeout=60)
        if answer.status_code == 429 or answer.status_code >= 500:
            raise cba_agent.CbaAgentError(9, f"Anaplan answered {answer.status_code}")
        if not answer.ok:
            raise cba_agent.CbaAgentError(5, cba_agent.refusal(answer.status_code, answer.text, answer.headers))
    except cba_agent.CbaAgentError as error:
        print(error, file=sys.stderr)
        return error.code
    except requests.RequestException as error:
        print(f"Anaplan cannot be reached: {error}", file=sys.stderr)
        return 9
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

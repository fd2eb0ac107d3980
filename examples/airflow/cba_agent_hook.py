"""An Airflow hook: Anaplan tokens from a cba-agent on the worker's host. Put `cba_agent.py` beside this file.

    token = CbaAgentHook().token()          # in the task that uses it; never return it from a task: that is XCom

The worker's user must be in the agent's group. Errors that a retry cannot fix (configuration, PIN, policy, an alarm) fail the
task permanently. If the token or the agent is unavailable, the task's `retries` apply.
"""

import cba_agent
import requests

try:  # Airflow 3
    from airflow.sdk.bases.hook import BaseHook
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ImportError:  # Airflow 2
    from airflow.exceptions import AirflowException, AirflowFailException
    from airflow.hooks.base import BaseHook


class CbaAgentHook(BaseHook):
    def __init__(self, socket="/run/cba-agent/agent.sock", auth_url="https://auth.anaplan.com", job=None):
        super().__init__()
        self.socket, self.auth_url, self.job = socket, auth_url, job

    def token(self):
        """An Anaplan token, good for 35 minutes."""
        try:
            login = cba_agent.login_request(socket=self.socket, auth_url=self.auth_url, job=self.job)
        except cba_agent.CbaAgentError as error:
            kind = AirflowException if error.retryable else AirflowFailException
            raise kind(str(error)) from error
        try:
            answer = requests.post(
                login["url"], headers=login["headers"], json=login["body"], timeout=60, auth=cba_agent.keep_headers
            )
        except requests.RequestException as error:
            raise AirflowException(f"Anaplan cannot be reached: {error}") from error
        if answer.status_code == 429 or answer.status_code >= 500:
            raise AirflowException(f"Anaplan answered {answer.status_code}")
        if not answer.ok:
            raise AirflowFailException(cba_agent.refusal(answer.status_code, answer.text, answer.headers))
        return answer.json()["tokenInfo"]["tokenValue"]

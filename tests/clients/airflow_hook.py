"""The rules of `examples/airflow/cba_agent_hook.py` in a real Airflow's classes.

    airflow_hook.py SOCKET AUTH_URL     prints whether it got a token, or the kind of failure
"""

import sys

from cba_agent_hook import AirflowException, AirflowFailException, BaseHook, CbaAgentHook

hook = CbaAgentHook(socket=sys.argv[1], auth_url=sys.argv[2])
assert isinstance(hook, BaseHook) and BaseHook.__module__.startswith("airflow.")
try:
    print(len(hook.token()) > 10)
except AirflowFailException as error:
    print("for good:", error)
except AirflowException as error:
    print("later:", error)

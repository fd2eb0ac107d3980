"""The rules of `examples/airflow/cba_agent_hook.py`, with stand-ins for the three names that it takes from Airflow.

    airflow_hook.py SOCKET AUTH_URL     prints the token's length, or the kind of failure
"""

import sys
import types


class AirflowException(Exception):
    pass


class AirflowFailException(AirflowException):
    pass


def module(name, **names):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(names)


module("airflow")
module("airflow.exceptions", AirflowException=AirflowException, AirflowFailException=AirflowFailException)
module("airflow.hooks")
module("airflow.hooks.base", BaseHook=object)

from cba_agent_hook import CbaAgentHook  # noqa: E402

try:
    print(len(CbaAgentHook(socket=sys.argv[1], auth_url=sys.argv[2]).token()) > 10)
except AirflowFailException as error:
    print("for good:", error)
except AirflowException as error:
    print("later:", error)

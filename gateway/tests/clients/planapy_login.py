"""PlanaPY: Basic, then its own validation, refresh and logout. Only its URL is changed."""
import sys

from PlanaPY.PlanaPY import AnaplanAPI

url, user, password = sys.argv[1:]
api = AnaplanAPI()
api.token_url = f"{url}/token/"
assert api.acquire_token(user, password) == 201
print(api.token)
assert api.token_details()["status"] == "SUCCESS"
assert api.refresh_token() == 200
print(api.token)
api.end_session()
assert api.resp.status_code == 204

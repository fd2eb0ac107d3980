"""apapi: Basic, then its own refresh, validation and logout. Only its URL is changed."""
import sys

from apapi.authentication import BasicAuth

url, user, password = sys.argv[1:]
with BasicAuth(f"{user}:{password}", auth_url=url) as auth:
    print(auth.session.auth.token.removeprefix("AnaplanAuthToken "))
    assert auth.validate_token()
    auth.refresh_token()
    print(auth.session.auth.token.removeprefix("AnaplanAuthToken "))
    assert auth.validate_token()
